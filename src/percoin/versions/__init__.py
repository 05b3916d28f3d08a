"""The versions of every model, for people and programs: ``python -m percoin.registry``.

``command`` reads what is asked for, ``overview`` lists the markets, ``details`` shows one
version, ``reproduction`` trains one again. What is changed is changed in ``percoin.registry``.
"""
