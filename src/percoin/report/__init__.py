"""The report on all models in the registry: ``python -m percoin.report``.

``reading`` reads the saved models and ``board`` decides their order and verdicts. ``page``,
``plain`` (Markdown, text, JSON) and ``charts`` write the output. No module loads weights.
"""
