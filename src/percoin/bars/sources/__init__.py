"""Where bars come from: one module per origin, all answering ``load(symbol, timeframe)``."""
