"""Technical analysis of one timeframe: five parts, each a score from -1 to 1 at every bar.

Positive speaks for LONG, negative for SHORT, 0 for neither; bars mirrored at a price give
the same scores with the other sign. NaN until there are enough bars, and where a part is
not defined. All of them look backwards only.
"""
