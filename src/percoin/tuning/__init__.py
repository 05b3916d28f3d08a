"""Searches settings on validation rows; the best ones are then trained and judged once."""
