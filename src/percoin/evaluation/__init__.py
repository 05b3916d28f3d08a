"""Measure how good a model is. Arrays go in, results come out.

``judgement`` prepares one market and calls ``evaluate``, which collects all results:

- ``metrics`` and ``skills`` score the model and the ``baselines``.
- ``uncertainty`` adds confidence intervals.
- ``collapse`` finds models that always give the same answer.
- ``gate`` decides whether the model may be served.
- ``backtest`` computes profit and loss.
- ``table`` prints the results.
- ``daily`` and ``joint`` compare models of many markets.

A prediction also needs ``calibration``. This file imports nothing, so a prediction loads only
the modules that it needs.
"""
