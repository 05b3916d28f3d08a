"""A figure with the ends of its interval, and the one way to print it."""

from __future__ import annotations

from dataclasses import dataclass

TOO_FEW_ROWS = "[too few rows]"


@dataclass(frozen=True)
class Interval:
    """A figure and the two-sided interval around it.

    Attributes:
        value: The figure.
        lower: Lower end of its interval; None with too few rows for any interval.
        upper: Upper end.
    """

    value: float
    lower: float | None
    upper: float | None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends; None where there is no interval."""
        return None if self.lower is None or self.upper is None else (self.lower, self.upper)

    @property
    def plain(self) -> Interval:
        """The figure and its ends alone, whatever else a subclass knows."""
        return Interval(self.value, self.lower, self.upper)

    @property
    def known(self) -> KnownInterval | None:
        """The same figure with its ends; None where there is no interval."""
        return None if self.ends is None else KnownInterval(self.value, *self.ends)

    def as_json(self) -> dict[str, float | None]:
        """The three numbers by name, whatever else a subclass knows."""
        return {"value": self.value, "lower": self.lower, "upper": self.upper}


@dataclass(frozen=True)
class KnownInterval(Interval):
    """A figure that is never told without its interval."""

    lower: float
    upper: float


def number_text(value: float, decimals: int = 4, signed: bool = True) -> str:
    """A figure as text; from 1 on, one decimal says enough."""
    return format(value, _spec(value, decimals, signed))


def ends_text(
    interval: Interval, decimals: int = 4, signed: bool = True, without: str = TOO_FEW_ROWS
) -> str:
    """``[+0.0012, +0.0340]``, or ``without`` where there is no interval."""
    if interval.ends is None:
        return without
    # As the figure is written: it stands beside them.
    spec = _spec(interval.value, decimals, signed)
    return "[{}, {}]".format(*(format(end, spec) for end in interval.ends))


def interval_text(
    interval: Interval | None,
    decimals: int = 4,
    signed: bool = True,
    without: str = TOO_FEW_ROWS,
) -> str:
    """``+0.0176 [+0.0012, +0.0340]``; a dash where there is no figure.

    Args:
        interval: What to print.
        decimals: Of a figure below 1.
        signed: Write a plus sign, as for a skill; not for a share or an AUC.
        without: Stands in the place of the ends where rows were too few for an interval.
    """
    if interval is None:
        return "-"
    ends = ends_text(interval, decimals, signed, without)
    return f"{number_text(interval.value, decimals, signed)} {ends}".rstrip()


def _spec(value: float, decimals: int, signed: bool) -> str:
    return f"{'+' if signed else ''}.{decimals if abs(value) < 1 else 1}f"
