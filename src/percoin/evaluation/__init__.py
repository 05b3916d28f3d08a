"""Is a model any good? Arrays in, results out.

``evaluate`` gathers everything for one model: ``metrics`` and ``skills`` score it beside
the ``baselines``, ``uncertainty`` says how sure that is, ``collapse`` and ``gate`` judge,
``backtest`` adds the money, ``table`` prints it; ``daily`` and ``joint`` hold models of many
markets beside each other. ``calibration`` is also needed to predict; nothing is imported
here, so that a prediction pays for nothing else.
"""
