"""When the next round is: by the calendar, so that nothing adds up over the weeks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from percoin.config import Rhythm
from percoin.errors import ConfigError, PercoinError

log = logging.getLogger(__name__)

# An exit code above it stands for a signal.
_SIGNALLED = 128
# Clocks are set, and machines sleep: nobody waits longer without another look at the time.
_LONGEST_NAP_SECS = 30.0


_STEP = {
    Rhythm.HOURLY: timedelta(hours=1),
    Rhythm.DAILY: timedelta(days=1),
    Rhythm.WEEKLY: timedelta(weeks=1),
}


@dataclass(frozen=True)
class Timetable:
    """Moments that depend on the calendar alone, in UTC.

    Attributes:
        rhythm: How often; weekly is on Mondays.
        at: ``HH:MM``; of hourly rounds the minute counts.
    """

    rhythm: Rhythm
    at: str

    def next_after(self, now: datetime) -> datetime:
        """The first moment later than ``now``.

        Raises:
            ConfigError: The calendar ends before it.
        """
        try:
            return self._next_after(now)
        except OverflowError as error:
            raise ConfigError(f"it is {now:%Y-%m-%d} by this clock: set it right") from error

    def _next_after(self, now: datetime) -> datetime:
        hour, minute = map(int, self.at.split(":"))
        moment = now.astimezone(UTC).replace(minute=minute, second=0, microsecond=0)
        if self.rhythm is not Rhythm.HOURLY:
            moment = moment.replace(hour=hour)
        if self.rhythm is Rhythm.WEEKLY:
            moment -= timedelta(days=moment.weekday())
        step = _STEP[self.rhythm]
        while moment <= now:
            moment += step
        while moment - step > now:
            moment -= step
        return moment


def _utc_now() -> datetime:
    return datetime.now(UTC)


def keep_running(
    timetable: Timetable,
    run: Callable[[], None],
    clock: Callable[[], datetime] = _utc_now,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Run at every moment of the timetable; a round that fails is logged and the next comes.

    A moment that passes while a round runs is left out. Signals end it as they end whatever
    runs: by the exception that their handler raises.

    Args:
        timetable: When.
        run: What.
        clock: The present moment, with its zone.
        sleep: Waits so many seconds.
    """
    while True:
        due = timetable.next_after(clock())
        log.info("next round at %s UTC", due.strftime("%Y-%m-%d %H:%M"))
        while (left := (due - clock()).total_seconds()) > 0:
            sleep(min(left, _LONGEST_NAP_SECS))
        try:
            run()
        except PercoinError as error:
            if error.exit_code > _SIGNALLED:
                raise
            log.error("the round failed: %s", error)
        except Exception:
            log.exception("the round failed")
