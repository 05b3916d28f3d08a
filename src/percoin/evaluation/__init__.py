"""Metrics, baselines and uncertainty: arrays in, results out."""
