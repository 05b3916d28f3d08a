"""Recipes: each prepares the markets for a training and fits their weights."""
