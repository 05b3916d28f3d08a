"""Judge forecasts from any source, with the baselines, intervals and gate of percoin's models."""
