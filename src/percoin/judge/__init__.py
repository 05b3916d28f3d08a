"""Anybody's forecasts before percoin's judge: the same rivals, rulers, intervals and gate."""
