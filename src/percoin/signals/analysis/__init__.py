"""Technical analysis of one timeframe: five parts, each a score from -1 to 1 at every bar.

A positive score means LONG, a negative one SHORT, 0 neither. Bars mirrored at a price give the
same scores with the opposite sign. A score is NaN until there are enough bars and where its part
is undefined. All parts use past bars only.
"""
