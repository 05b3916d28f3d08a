"""A search among settings on validation rows; the best are then trained and judged once."""
