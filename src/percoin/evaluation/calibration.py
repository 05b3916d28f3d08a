"""Calibrate probabilities, so that they match observed frequencies.

The calibration is fitted on validation rows only. It is a plain dict, so the manifest can store
it and a prediction needs only numpy::

    {"method": "none"}
    {"method": "temperature", "temperature": 1.23}
    {"method": "vector", "weights": [w0, w1, w2], "bias": [b0, b1, b2]}

Temperature scaling (Guo et al., 2017) makes all probabilities sharper or softer. Vector scaling
also moves probability between classes; this reverses the effect of class weights in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from percoin.types import FloatArray, IntArray, Signal

CALIBRATION_METHODS = ("none", "temperature", "vector")

_N_CLASSES = len(Signal)
# Outside this range the result is close to a constant or to an argmax.
_TEMPERATURE_RANGE = (0.05, 20.0)


def apply_calibration(logits: FloatArray, calibration: Mapping[str, Any]) -> FloatArray:
    """Turn logits into calibrated probabilities.

    Logits become log-probabilities first. So log-probabilities can be passed too, and a
    constant added to a row has no effect.

    Args:
        logits: Logits or log-probabilities, shape (n, C).
        calibration: As returned by ``fit_calibration``.

    Returns:
        Shape (n, C), rows sum to one.

    Raises:
        ValueError: Logits have NaN, no percoin method writes such a calibration, or the result
            is not finite.
    """
    probabilities = calibrate(_check_logits(logits), *factor_and_offset(calibration))
    if not np.isfinite(probabilities).all():
        raise ValueError(f"calibration {dict(calibration)} makes no probabilities of these logits")
    return probabilities


def calibrate(logits: FloatArray, factor: FloatArray, offset: FloatArray) -> FloatArray:
    """The same for calibrations of any method, unchecked: a row may come to no number.

    Args:
        logits: Logits or log-probabilities, shape (n, C).
        factor: See ``factor_and_offset``; one for all rows, or one a row.
        offset: As ``factor``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(_log_softmax(_log_softmax(logits) * factor + offset))


def check_calibration(calibration: Mapping[str, Any]) -> None:
    """Check before a prediction that a calibration is usable.

    Raises:
        ValueError: No percoin method writes such a calibration.
    """
    factor_and_offset(calibration)


def factor_and_offset(calibration: Mapping[str, Any]) -> tuple[FloatArray, FloatArray]:
    """A factor and an offset for each log-probability; all methods have this form.

    Raises:
        ValueError: No percoin method writes such a calibration.
    """
    method = calibration.get("method")
    neutral = np.zeros(())
    if method == "none":
        return neutral + 1, neutral
    if method == "temperature":
        temperature = _check_numbers(calibration, "temperature", ())
        lowest, highest = _TEMPERATURE_RANGE
        if not lowest <= temperature <= highest:
            raise ValueError(
                f"calibration has temperature {temperature}, expected {lowest} to {highest}"
            )
        return 1 / temperature, neutral
    if method == "vector":
        weights = _check_numbers(calibration, "weights", (_N_CLASSES,))
        return weights, _check_numbers(calibration, "bias", (_N_CLASSES,))
    known = ", ".join(CALIBRATION_METHODS)
    raise ValueError(f"calibration has method {method!r}; known are {known}")


def fit_calibration(
    logits: FloatArray, labels: IntArray, method: str = "temperature"
) -> dict[str, Any]:
    """Fit a calibration on validation rows.

    On these rows the log-loss of the result is never larger than that of the raw logits: if
    fitting does not help, the result changes nothing.

    Args:
        logits: Logits of validation rows, shape (n, C). With train rows the calibration learns
            the overconfidence that it should remove; test rows are a leak.
        labels: Shape (n,).
        method: One of ``CALIBRATION_METHODS``.

    Raises:
        ValueError: NaN logits, labels that are no class, or an unknown method.
    """
    log_probabilities = _log_softmax(_check_logits(logits))
    known = np.asarray(labels)
    if known.shape != (len(log_probabilities),) or not np.isin(known, range(_N_CLASSES)).all():
        raise ValueError("labels must be one class per row of logits")
    if method == "none":
        return {"method": "none"}
    if method == "temperature":
        return {"method": "temperature", "temperature": _fit_temperature(log_probabilities, known)}
    if method == "vector":
        weights, bias = _fit_vector(log_probabilities, known)
        return {"method": "vector", "weights": weights.tolist(), "bias": bias.tolist()}
    raise ValueError(f"method {method!r} is unknown; known are {', '.join(CALIBRATION_METHODS)}")


def _fit_temperature(log_probabilities: FloatArray, labels: IntArray) -> float:
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return _mean_loss(log_probabilities / np.exp(log_temperature), labels)

    bounds = tuple(np.log(_TEMPERATURE_RANGE))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0


def _fit_vector(log_probabilities: FloatArray, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Weights and biases of vector scaling.

    The loss is convex in its six parameters; the search starts from temperature scaling.
    """
    from scipy.optimize import minimize

    targets = np.eye(_N_CLASSES)[labels]

    def loss_and_gradient(parameters: FloatArray) -> tuple[float, FloatArray]:
        weights, bias = np.split(parameters, 2)
        scaled = _log_softmax(log_probabilities * weights + bias)
        excess = (np.exp(scaled) - targets) / len(labels)
        gradient = np.concatenate([(excess * log_probabilities).sum(axis=0), excess.sum(axis=0)])
        return float(-(scaled * targets).sum() / len(labels)), gradient

    inverse_temperature = 1.0 / _fit_temperature(log_probabilities, labels)
    start = np.repeat([inverse_temperature, 0.0], _N_CLASSES)
    found = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B")
    best = found.x if found.fun < loss_and_gradient(start)[0] else start
    weights, bias = np.split(best, 2)
    return weights, bias - bias.mean()


def _mean_loss(logits: FloatArray, labels: IntArray) -> float:
    return float(-_log_softmax(logits)[np.arange(len(labels)), labels].mean())


def _log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def _check_logits(logits: FloatArray) -> FloatArray:
    checked = np.asarray(logits, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[1] != _N_CLASSES:
        raise ValueError(f"logits have shape {checked.shape}, expected (n, {_N_CLASSES})")
    if not np.isfinite(checked).all():
        raise ValueError("logits are not finite")
    return checked


def _check_numbers(calibration: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> FloatArray:
    try:
        numbers = np.asarray(calibration[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"calibration lacks usable numbers under {key!r}") from None
    if numbers.shape != shape or not np.isfinite(numbers).all():
        raise ValueError(f"calibration has unusable numbers under {key!r}: {calibration[key]!r}")
    return numbers
