"""Saved models asked about bars: one market, many at once, the newest bar or a range."""

from percoin.inference.levels import find_levels
from percoin.inference.model import ServedModel
from percoin.inference.networks import Backend
from percoin.inference.predictor import Predictor
from percoin.inference.results import Answers, BarPart, NoPrediction, RangeAnswers, Reason

__all__ = [
    "Answers",
    "Backend",
    "BarPart",
    "NoPrediction",
    "Predictor",
    "RangeAnswers",
    "Reason",
    "ServedModel",
    "find_levels",
]
