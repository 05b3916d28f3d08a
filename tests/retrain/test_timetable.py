from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percoin.config import Rhythm
from percoin.errors import ConfigError, SweepError
from percoin.retrain.timetable import Timetable, keep_running

MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
TIMES = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
STEPS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1), "weekly": timedelta(weeks=1)}


@pytest.mark.parametrize(
    ("rhythm", "now", "due"),
    [
        (Rhythm.DAILY, "2026-03-01T03:09:59", "2026-03-01T03:10"),
        (Rhythm.DAILY, "2026-03-01T03:10:00", "2026-03-02T03:10"),
        (Rhythm.DAILY, "2026-12-31T23:00:00", "2027-01-01T03:10"),
        (Rhythm.HOURLY, "2026-03-01T03:10:01", "2026-03-01T04:10"),
        (Rhythm.HOURLY, "2026-03-01T23:30:00", "2026-03-02T00:10"),
        (Rhythm.WEEKLY, "2026-03-01T12:00:00", "2026-03-02T03:10"),  # a Sunday, then Monday
        (Rhythm.WEEKLY, "2026-03-02T03:10:00", "2026-03-09T03:10"),
    ],
)
def test_the_next_moment(rhythm, now, due):
    found = Timetable(rhythm, "03:10").next_after(datetime.fromisoformat(now + "+00:00"))
    assert found == datetime.fromisoformat(due + ":00+00:00")


def test_other_zones_mean_the_same_moment():
    now = datetime(2026, 3, 1, 5, 0, tzinfo=timezone(timedelta(hours=2)))  # 03:00 UTC
    due = Timetable(Rhythm.DAILY, "03:10").next_after(now)
    assert due == datetime(2026, 3, 1, 3, 10, tzinfo=UTC)


@given(MOMENTS, TIMES, st.sampled_from(list(Rhythm)))
def test_moments_lie_a_step_apart_wherever_one_begins(now, at, rhythm):
    timetable = Timetable(rhythm, at)
    due = timetable.next_after(now)
    assert now < due <= now + STEPS[rhythm]
    assert timetable.next_after(due) - due == STEPS[rhythm]
    assert timetable.next_after(due - timedelta(microseconds=1)) == due


@pytest.mark.parametrize("rhythm", list(Rhythm))
def test_a_clock_in_the_year_9998_is_on_time_and_at_the_end_of_the_calendar_one_line(rhythm):
    timetable, now = Timetable(rhythm, "03:10"), datetime(9998, 12, 31, 23, 59, tzinfo=UTC)
    assert now < timetable.next_after(now) <= now + STEPS[rhythm.value]
    with pytest.raises(ConfigError, match="it is 9999-12-31 by this clock: set it right"):
        timetable.next_after(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))


class Clock:
    """Time that passes by being slept through, and sleeps a little too long, as machines do."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.naps: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, secs: float) -> None:
        self.naps.append(secs)
        self.now += timedelta(seconds=secs * 1.001 + 0.01)


def rounds(n_rounds: int, work: timedelta, errors: dict[int, Exception]) -> list[datetime]:
    clock, begun = Clock(datetime(2026, 3, 1, 3, 0, tzinfo=UTC)), []

    def run() -> None:
        begun.append(clock.now)
        clock.now += work
        if len(begun) == n_rounds:
            raise KeyboardInterrupt
        if len(begun) in errors:
            raise errors[len(begun)]

    with pytest.raises(KeyboardInterrupt):
        keep_running(Timetable(Rhythm.DAILY, "03:10"), run, clock, clock.sleep)
    assert max(clock.naps) <= 30
    return begun


def test_a_hundred_days_later_it_is_still_on_time():
    begun = rounds(100, timedelta(hours=2), {})
    first = datetime(2026, 3, 1, 3, 10, tzinfo=UTC)
    late = [moment - first - timedelta(days=day) for day, moment in enumerate(begun)]
    assert timedelta(0) <= min(late)
    assert max(late) < timedelta(seconds=1)


def test_a_round_that_lasts_too_long_leaves_the_missed_ones_out():
    begun = rounds(4, timedelta(hours=30), {})
    assert [moment.day for moment in begun] == [1, 3, 5, 7]


def test_failed_rounds_are_logged_and_the_next_one_comes(caplog):
    errors = {1: ConfigError("nothing is left"), 2: ZeroDivisionError("nobody foresaw this")}
    assert [moment.day for moment in rounds(4, timedelta(0), errors)] == [1, 2, 3, 4]
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"] == [
        "the round failed: nothing is left",
        "the round failed",
    ]
    assert "nobody foresaw this" in caplog.text


def test_a_round_that_a_signal_ended_is_the_last_one():
    clock = Clock(datetime(2026, 3, 1, tzinfo=UTC))

    def run() -> None:
        raise SweepError("stopped by SIGTERM", 143)

    with pytest.raises(SweepError, match="SIGTERM"):
        keep_running(Timetable(Rhythm.HOURLY, "00:05"), run, clock, clock.sleep)
