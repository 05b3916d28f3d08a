"""Checks for data leaks in bars, a dataset, a served model or published scores.

- ``lookahead``: do past values change when later bars are removed?
- ``rows``: do scaling and splits use only the rows they may use?
- ``probes``: is any result too good to be true?
- ``published`` and ``served``: are the exported scores and the served model plausible?
- ``replay``: does a served model answer live as it does for the same bars in training?
"""
