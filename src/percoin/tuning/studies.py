"""All searches of one market in one SQLite file; only one process may open it at a time."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError

from percoin.errors import InUseError, StudyError
from percoin.file_lock import claimed

STUDY_FILE = "study.db"
_LOCK_FILE = "study.lock"
_FACTS = "facts"
_WINNERS = "winners"
# Fields of a winner (the note on a chosen model) and their types.
_WINNERS_HOLD = {"study": str, "trial": int, "trials": int, "test": list, "run": str}
# In notes of newer versions: hash of the settings that no trial depends on.
SETTINGS = "settings"
_OTHER_VERSION = re.compile(r"set up by optuna ([\w.]{1,20})\)")
_AFRESH = "rename it to keep what it holds; the search then begins afresh"
# SQLite messages, and advice that loses no trials.
_ADVICE = {
    "database is locked": "another program has it open: end that and try again",
    "database or disk is full": "free some space and try again",
    "attempt to write a readonly database": "make the file and its folder writable",
    "unable to open database file": "make it a file in a folder that can be written to",
}

Market = tuple[str, str]


class Studies:
    """All studies of one market.

    Args:
        storage: Optuna storage of the SQLite file.
    """

    def __init__(self, storage: RDBStorage) -> None:
        self._storage = storage

    @property
    def in_order(self) -> list[optuna.Study]:
        """All studies, oldest first."""
        names = optuna.get_all_study_names(self._storage)
        return [optuna.load_study(study_name=name, storage=self._storage) for name in names]

    @property
    def n_trials(self) -> int:
        """Number of trials of all studies that gave a skill: complete or ended early."""
        told = (TrialState.COMPLETE, TrialState.PRUNED)
        return sum(len(s.get_trials(deepcopy=False, states=told)) for s in self.in_order)

    def newest(self, key: str) -> optuna.Study | None:
        """The newest study with this key; None if there is none."""
        found = [
            study
            for study in self.in_order
            # A study without facts is skipped: its process died before it wrote them.
            if study.study_name.startswith(f"{key}-") and _FACTS in study.user_attrs
        ]
        return found[-1] if found else None

    def begin(self, key: str, facts: Mapping[str, Any]) -> optuna.Study:
        """Start a new study.

        Args:
            key: Hash of the settings that affect the skill of its trials.
            facts: Other data that affects it, such as the bars.
        """
        number = 1 + sum(study.study_name.startswith(f"{key}-") for study in self.in_order)
        study = optuna.create_study(
            study_name=f"{key}-{number}", storage=self._storage, direction="maximize"
        )
        study.set_user_attr(_FACTS, dict(facts))
        return study

    def winners(self) -> list[dict[str, Any]]:
        """All models that were chosen from a study and judged on test rows, as notes."""
        return [winner for study in self.in_order for winner in winners_of(study)]

    def set_attribute(self, study: optuna.Study, number: int, name: str, value: Any) -> None:
        """Store a note on an unfinished trial, found by its number."""
        storage = self._storage
        study_id = storage.get_study_id_from_name(study.study_name)
        trial_id = storage.get_trial_id_from_study_id_trial_number(study_id, number)
        storage.set_trial_user_attr(trial_id, name, value)


def facts_of(study: optuna.Study) -> dict[str, Any]:
    """The facts that a study started with, such as its bars."""
    facts: dict[str, Any] = study.user_attrs[_FACTS]
    return facts


def winners_of(study: optuna.Study) -> list[dict[str, Any]]:
    """Notes on the models chosen from one study, newest last."""
    winners: list[dict[str, Any]] = study.user_attrs.get(_WINNERS, [])
    return winners


def add_winner(study: optuna.Study, winner: Mapping[str, Any]) -> None:
    """Store the note on a chosen model, before its test rows are used."""
    study.set_user_attr(_WINNERS, [*winners_of(study), dict(winner)])


def count_looks(winners: Sequence[Mapping[str, Any]], now: Mapping[str, Any]) -> int:
    """Count the chosen models judged on the test rows of this one, itself included.

    Args:
        winners: Notes of all studies: ``study``, ``trial`` and ``settings`` identify the model,
            ``test`` has the open times of the first and last test row. An older note without
            ``settings`` counts as any model of its trial.
        now: Note on the model to judge; the same settings count only once.
    """
    first, last = now["test"]
    models: dict[tuple[str, int], set[str]] = defaultdict(set)
    for winner in (*winners, now):
        if winner["test"][0] <= last and first <= winner["test"][1]:
            known = {winner[SETTINGS]} if SETTINGS in winner else set()
            models[winner["study"], winner["trial"]] |= known
    return sum(max(1, len(known)) for known in models.values())


@contextmanager
def open_studies(folder: Path, market: Market) -> Iterator[Studies]:
    """Open the studies of a market; no other process can open them meanwhile.

    Args:
        folder: Folder of the file; it is created if missing.
        market: Symbol and timeframe, for messages.

    Raises:
        StudyError: Another process has the file open, another version of Optuna wrote it, or
            it cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / STUDY_FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _locked(folder, market), _file_errors(path, market):
        storage = _storage(path, market)
        try:
            studies = Studies(storage)
            _check_contents(studies, path, market)
            yield studies
        finally:
            storage.engine.dispose()


def _storage(path: Path, market: Market) -> RDBStorage:
    try:
        return RDBStorage(_url(path))
    except RuntimeError as error:
        # Optuna advises to upgrade the file even if the file is newer than Optuna.
        version = _OTHER_VERSION.search(str(error))
        other = f"Optuna {version[1]}" if version else "another Optuna"
        raise StudyError(
            *market,
            f"{path} was written by {other}, and Optuna {optuna.__version__} does not read it",
            f"install that one to go on with it, or {_AFRESH}",
        ) from error


def _check_contents(studies: Studies, path: Path, market: Market) -> None:
    """Raise StudyError for studies that percoin did not write."""
    try:
        for study in studies.in_order:
            _check_study(study)
    # The values can be any JSON: any type, any depth, numbers of any size.
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise StudyError(
            *market,
            f"{path} holds what no search of percoin wrote ({type(error).__name__}: {error})",
            _AFRESH,
        ) from error


def _check_study(study: optuna.Study) -> None:
    facts, winners = study.user_attrs.get(_FACTS, {}), winners_of(study)
    _require(isinstance(facts, dict) and isinstance(winners, list), "facts or winners")
    if facts:
        bars = facts["bars"]
        _require(isinstance(bars, dict), "the bars of a study")
        _require(all(_is_moment(bars.get(end, 0)) for end in ("first", "last")), "when they are")
    for winner in winners:
        _require(isinstance(winner, dict), "a winner")
        for name, kind in _WINNERS_HOLD.items():
            _require(isinstance(winner[name], kind), f"{name} of a winner")
        _require(isinstance(winner.get(SETTINGS, ""), str), f"{SETTINGS} of a winner")
        first, last = winner["test"]
        _require(_is_moment(first) and _is_moment(last), "test of a winner")
    for trial in study.get_trials(deepcopy=False):
        _require(trial.value is None or math.isfinite(trial.value), "the skill of a trial")


def _is_moment(value: object) -> bool:
    """Whether the value can be a time in milliseconds since 1970."""
    return isinstance(value, int) and 0 <= value < 2**63


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _url(path: Path) -> str:
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    # Optuna replaces a version between braces, so braces in the path are doubled.
    return url.replace("{", "{{").replace("}", "}}")


@contextmanager
def _locked(folder: Path, market: Market) -> Iterator[None]:
    """Hold the lock on the searches of the market."""
    with ExitStack() as stack:
        try:
            stack.enter_context(claimed(folder, _LOCK_FILE))
        except InUseError:
            raise StudyError(
                *market,
                f"another process is searching in {folder}",
                "wait for it or end it; searches of other markets can run beside it",
            ) from None
        yield


@contextmanager
def _file_errors(path: Path, market: Market) -> Iterator[None]:
    """Turn errors of the file into a StudyError of one line."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
        reason = str(getattr(cause, "orig", cause)).partition("\n")[0]
        raise StudyError(
            *market,
            f"{path} cannot be used ({reason})",
            _ADVICE.get(reason, _AFRESH),
        ) from error
