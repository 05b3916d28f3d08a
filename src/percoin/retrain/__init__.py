"""Which models are due for a new training, why, and what becomes of it."""
