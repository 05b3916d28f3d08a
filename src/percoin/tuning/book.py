"""All searches of one market, in one SQLite file that one process has open at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from percoin.errors import StudyError

BOOK_FILE = "study.db"
_LOCK_FILE = "study.lock"
_FACTS = "facts"
_WINNERS = "winners"

Market = tuple[str, str]


class Book:
    """Every study of one market.

    Args:
        storage: Where they are kept.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._storage = storage

    @property
    def studies(self) -> list[optuna.Study]:
        """All of them, the oldest first."""
        names = optuna.get_all_study_names(self._storage)
        return [optuna.load_study(study_name=name, storage=self._storage) for name in names]

    @property
    def n_trials(self) -> int:
        """Trials of all studies that told anything: whole ones and those ended early."""
        told = (TrialState.COMPLETE, TrialState.PRUNED)
        return sum(len(s.get_trials(deepcopy=False, states=told)) for s in self.studies)

    def newest(self, key: str) -> optuna.Study | None:
        """The last study that was begun with these settings."""
        found = [
            study
            for study in self.studies
            # Without facts the process died before it could say what the study is about.
            if study.study_name.startswith(f"{key}-") and _FACTS in study.user_attrs
        ]
        return found[-1] if found else None

    def begin(self, key: str, facts: Mapping[str, Any]) -> optuna.Study:
        """A new study.

        Args:
            key: Of the settings that decide what its trials are worth.
            facts: What else they depend on.
        """
        number = 1 + sum(study.study_name.startswith(f"{key}-") for study in self.studies)
        study = optuna.create_study(
            study_name=f"{key}-{number}", storage=self._storage, direction="maximize"
        )
        study.set_user_attr(_FACTS, dict(facts))
        return study

    def winners(self) -> list[dict[str, Any]]:
        """Every model that was chosen from a study and sent to its test rows."""
        return [winner for study in self.studies for winner in winners_of(study)]

    def set_attribute(self, trial: optuna.trial.FrozenTrial, name: str, value: Any) -> None:
        """Note something about a trial that is still open."""
        self._storage.set_trial_user_attr(trial._trial_id, name, value)


def facts_of(study: optuna.Study) -> dict[str, Any]:
    """What a study was begun with."""
    facts: dict[str, Any] = study.user_attrs[_FACTS]
    return facts


def winners_of(study: optuna.Study) -> list[dict[str, Any]]:
    """The models that were chosen from one study, the newest last."""
    winners: list[dict[str, Any]] = study.user_attrs.get(_WINNERS, [])
    return winners


def add_winner(study: optuna.Study, winner: Mapping[str, Any]) -> None:
    """Note a model before its test rows are looked at."""
    study.set_user_attr(_WINNERS, [*winners_of(study), dict(winner)])


def count_looks(winners: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> int:
    """How many chosen models have judged the test rows of this one, itself included.

    Args:
        winners: Of all studies: ``study`` and ``trial`` say which settings, ``test`` has the
            open times of the first and last test row.
        now: The one to be judged; the same settings once more are no further look.
    """
    first, last = now["test"]
    others = {
        (winner["study"], winner["trial"])
        for winner in winners
        if winner["test"][0] <= last and first <= winner["test"][1]
    }
    return 1 + len(others - {(now["study"], now["trial"])})


@contextmanager
def opened(folder: Path, market: Market) -> Iterator[Book]:
    """Open the book of a market for this process alone.

    Args:
        folder: Holds the file; made if need be.
        market: Symbol and timeframe, for messages.

    Raises:
        StudyError: Another process has it, or the file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / BOOK_FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _locked(folder / _LOCK_FILE, market), _file_errors(path, market):
        storage = RDBStorage(_url(path))
        try:
            yield Book(storage)
        finally:
            storage.engine.dispose()


def _url(path: Path) -> str:
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    # Optuna fills in a version between braces.
    return url.replace("{", "{{").replace("}", "}}")


@contextmanager
def _locked(path: Path, market: Market) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when its holder dies, however that happens."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(
                *market,
                f"another process is searching in {path.parent}",
                "wait for it or end it; searches of other markets can run beside it",
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _file_errors(path: Path, market: Market) -> Iterator[None]:
    """Say in one line what is wrong with the file."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
        reason = str(getattr(cause, "orig", cause)).partition("\n")[0]
        raise StudyError(
            *market,
            f"{path} cannot be used ({reason})",
            "make room or move the file away; without it the search begins afresh",
        ) from error
