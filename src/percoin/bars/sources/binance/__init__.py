"""Bars of Binance, or of another exchange: history from the archive, the newest from the API."""
