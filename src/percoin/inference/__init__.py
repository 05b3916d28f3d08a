"""Saved models asked about bars: one market, many at once, the newest bar or a range."""

from percoin.features.levels import find_levels
from percoin.inference.model import ServedModel
from percoin.inference.networks import Backend
from percoin.inference.predictor import Predictor
from percoin.inference.results import (
    Answers,
    BarPart,
    NoPrediction,
    NoPredictionReason,
    RangeAnswers,
)

__all__ = [
    "Answers",
    "Backend",
    "BarPart",
    "NoPrediction",
    "NoPredictionReason",
    "Predictor",
    "RangeAnswers",
    "ServedModel",
    "find_levels",
]
