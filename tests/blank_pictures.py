"""Pictures without anything on them, where a test does not look at them.

Drawing the three pictures of a training takes as long as the training. Here they are composed
and written as ever, only not painted. A process of its own paints them, and so does a training
that a whole file of tests looks at.
"""

import pytest
from matplotlib.figure import Figure

PAINT = Figure.draw


@pytest.fixture(autouse=True)
def _blank_pictures(monkeypatch):
    monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)


@pytest.fixture
def painted(monkeypatch):
    """Pictures as they are to be."""
    monkeypatch.setattr(Figure, "draw", PAINT)
