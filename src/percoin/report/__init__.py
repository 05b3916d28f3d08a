"""What the registry holds, for people: ``python -m percoin.report``.

``reading`` takes the saved models in, ``board`` decides what is said about them, and
``page``, ``plain`` (Markdown, text, JSON) and ``charts`` say it. Nothing here loads weights.
"""
