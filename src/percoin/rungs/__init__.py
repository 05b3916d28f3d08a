"""What each rung of the chain is worth on a market, by the evaluation that judges models.

``scores.py`` holds a rung's answers against what came, ``run.py`` gathers the answers of a
market, ``table.py`` tells them.
"""
