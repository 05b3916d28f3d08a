"""Retraining: decide which models need a new training and why, then train them."""
