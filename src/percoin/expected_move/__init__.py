"""How far a market will move: a volatility forecast, bands around the price, their scores."""
