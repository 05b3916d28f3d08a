"""From bars to the 15 features, and their scaling."""
