"""The versions of every model, for people and programs: ``python -m percoin.registry``.

``actions`` reads the command line, ``overview`` lists the markets, ``details`` shows one version,
``reproduction`` trains one again. Only ``percoin.registry`` changes anything in the models folder.
"""
