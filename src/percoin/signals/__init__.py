"""Sources of signals for a market: its model, then fixed rules, then holding."""
