"""Bars from a folder, or one file, in the forms that people have them.

::

    names.py     which market and bar length a file's name stands for
    folder.py    the files of one market in a folder
    content.py   the bytes of a file, unpacked, and what is no table at all
    text.py      CSV: its separator, its header line, where its rows begin
    raw.py       Parquet, Feather, CSV and JSON as one kind of table (table.py)
    columns.py   which columns hold the open time, the prices, the volume, the market (words.py)
    times.py     numbers and texts as times
    checks.py    what a file says against how it is read
    reading.py   all of that for the files of one market, joined where they are parts
    absent.py    what there is in place of bars that were asked for
    source.py    what a market and timeframe are answered with
"""

from percoin.bars.sources.files.source import FilesSource

__all__ = ["FilesSource"]
