"""Engines that run jobs; each module has ``build_engine`` and needs only its own extra."""
