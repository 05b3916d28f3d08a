"""Where jobs run; each module has ``build_engine``, and needs no more than its own extra."""
