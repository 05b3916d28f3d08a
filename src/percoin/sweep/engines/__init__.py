"""Places where jobs run; each module has ``build_engine`` and imports its own extra only."""
