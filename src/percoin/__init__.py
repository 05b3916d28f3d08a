"""percoin: one small, honestly judged signal classifier per market and timeframe."""

__version__ = "0.1.0"
