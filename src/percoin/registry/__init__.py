"""Saved models on disk: the only code that touches ``models/``."""
