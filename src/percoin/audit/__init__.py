"""The project's own check for leaks: bars, a dataset, a served model or published scores.

``lookahead`` asks whether the past changes when the future is taken away, ``rows``
whether scaling and split keep to their side of the cuts, ``probes`` whether anything
is too good to be true, ``published`` and ``served`` look at what was already exported,
``replay`` whether a served model says live what it says of the same bars in training.
"""
