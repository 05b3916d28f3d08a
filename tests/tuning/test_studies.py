import re
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuning_builders import MARKET, measure_worth, searcher, silent

from percoin.errors import StudyError
from percoin.tuning import studies as studies_module
from percoin.tuning.studies import (
    STUDY_FILE,
    add_winner,
    count_looks,
    facts_of,
    open_studies,
    winners_of,
)


def test_a_study_is_found_again_by_its_key_and_the_newest_of_them_wins(tmp_path):
    with open_studies(tmp_path, MARKET) as studies:
        assert studies.newest("a") is None
        names = [
            studies.begin(key, {"n": n, "bars": {}}).study_name
            for n, key in enumerate(["a", "b", "a"])
        ]
        assert names == ["a-1", "b-1", "a-2"]
    with open_studies(tmp_path, MARKET) as studies:
        assert studies.newest("a").study_name == "a-2"
        assert facts_of(studies.newest("a"))["n"] == 2
        assert studies.newest("c") is None


def test_trials_of_all_studies_count_but_only_those_that_told_anything(tmp_path):
    for key in ("a", "b"):
        with searcher(tmp_path, "experiment.trials=2", key=key) as search:
            search.run(measure_worth, silent)
    with searcher(tmp_path, key="c") as search:
        search.study.ask()
        search.study.tell(search.study.ask(), state=search.study.get_trials()[0].state.FAIL)
        assert search.studies.n_trials == 4


def test_winners_of_all_studies_are_remembered(tmp_path):
    with open_studies(tmp_path, MARKET) as studies:
        for key in ("a", "b"):
            add_winner(studies.begin(key, {}), winner(key, 1, 0, 9) | winner_facts())
        add_winner(studies.newest("a"), winner("a", 2, 0, 9) | winner_facts())
    with open_studies(tmp_path, MARKET) as studies:
        assert [each["trial"] for each in winners_of(studies.newest("a"))] == [1, 2]
        assert [each["trial"] for each in studies.winners()] == [1, 2, 1]


def winner(study: str, trial: int, first: int, last: int) -> dict:
    return {"study": study, "trial": trial, "test": [first, last]}


def test_a_look_is_another_model_on_test_rows_that_overlap():
    now = winner("a-2", 7, 100, 200)
    assert count_looks([], now) == 1
    assert count_looks([now, now], now) == 1
    assert count_looks([winner("a-2", 7, 50, 150)], now) == 1
    assert count_looks([winner("a-2", 8, 200, 300), winner("a-1", 7, 0, 100)], now) == 3
    assert count_looks([winner("a-1", 1, 0, 99), winner("a-1", 2, 201, 300)], now) == 1


def test_a_trial_that_was_trained_with_other_settings_is_another_look():
    def note(settings: str | None = None, trial: int = 7) -> dict:
        return {**winner("a-2", trial, 100, 200), **({"settings": settings} if settings else {})}

    assert count_looks([note("x")], note("x")) == 1
    assert count_looks([note("x"), note("x")], note("y")) == 2
    assert count_looks([note("x"), note("y"), note("x", 8), note("z", 8)], note("y")) == 4
    # Notes of older versions say nothing of them, and count as they did.
    assert count_looks([note()], note("x")) == 1
    assert count_looks([note(trial=8), note("x", 8)], note("x")) == 2


@given(
    st.lists(
        st.builds(winner, st.sampled_from("ab"), st.integers(0, 3), st.just(0), st.just(9)),
        max_size=8,
    )
)
def test_looks_never_fall_when_a_winner_is_added(winners):
    now = winner("a", 0, 0, 9)
    looks = [count_looks(winners[:n], now) for n in range(len(winners) + 1)]
    assert looks == sorted(looks)
    assert 1 <= looks[-1] <= 1 + len(winners)


def test_two_processes_cannot_search_one_market_at_once(tmp_path):
    code = """
        import sys
        from pathlib import Path
        from percoin.errors import StudyError
        from percoin.tuning.studies import open_studies
        try:
            with open_studies(Path(sys.argv[1]), ("BTCUSDT", "1h")):
                print("opened")
        except StudyError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with open_studies(tmp_path, MARKET):
        other = subprocess.run(command, capture_output=True, text=True, check=True)
    assert other.stdout.splitlines() == [
        f"BTCUSDT 1h: another process is searching in {tmp_path}; wait for it or end it; "
        "searches of other markets can run beside it"
    ]
    with open_studies(tmp_path, MARKET) as studies:
        assert studies.in_order == []


def test_a_file_that_is_no_study_is_one_clear_line(tmp_path):
    (tmp_path / STUDY_FILE).write_text("not a database " * 100)
    with pytest.raises(StudyError) as caught, open_studies(tmp_path, MARKET):
        pass
    assert re.fullmatch(
        r"BTCUSDT 1h: \S+study\.db cannot be used \(file is not a database\); .* begins afresh",
        str(caught.value),
    )
    assert (tmp_path / STUDY_FILE).read_text().startswith("not a database")


def begin(folder: Path, **facts: object) -> Path:
    with open_studies(folder, MARKET) as studies:
        studies.begin("a", {"bars": {}, **facts})
    return folder / STUDY_FILE


def sqlite(path: Path, *statements: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    return connection


def refusal(folder: Path) -> str:
    with pytest.raises(StudyError) as caught, open_studies(folder, MARKET):
        pytest.fail("it was opened")
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("version", ["2.6.0", "9.9.9"])
def test_a_file_of_another_optuna_is_one_clear_line(tmp_path, version):
    path = begin(tmp_path)
    change = f"update version_info set library_version='{version}'"
    sqlite(path, "update alembic_version set version_num='v0'", change).commit()
    content = path.read_bytes()
    assert refusal(tmp_path) == (
        f"BTCUSDT 1h: {path} was written by Optuna {version}, and Optuna {optuna.__version__} "
        "does not read it; install that one to go on with it, or rename it to keep what it "
        "holds; the search then begins afresh"
    )
    assert path.read_bytes() == content


def test_a_file_that_another_program_has_locked_is_not_called_broken(tmp_path, monkeypatch):
    path = begin(tmp_path)
    url = studies_module._url
    monkeypatch.setattr(studies_module, "_url", lambda path: f"{url(path)}?timeout=0.01")
    other = sqlite(path, "begin exclusive")
    assert refusal(tmp_path) == (
        f"BTCUSDT 1h: {path} cannot be used (database is locked); "
        "another program has it open: end that and try again"
    )
    other.close()
    with open_studies(tmp_path, MARKET) as again:
        assert len(again.in_order) == 1


@pytest.mark.parametrize(
    "planted",
    [
        "7",
        '"text"',
        '[{"trial": 1}]',
        '[{"study": "a-1", "trial": 1, "trials": 1, "test": [1], "run": "r"}]',
        '[{"study": "a-1", "trial": 1, "trials": 1, "test": [1, "x"], "run": "r"}]',
        '[{"study": "a-1", "trial": "1", "trials": 1, "test": [1, 2], "run": 5}]',
        "{",
        "[" * 100_000,
    ],
)
def test_winners_that_no_search_wrote_are_one_clear_line(tmp_path, planted):
    path = begin(tmp_path)
    with open_studies(tmp_path, MARKET) as studies:
        add_winner(studies.in_order[0], {"trial": 1, "test": [1, 2]} | winner_facts())
    connection = sqlite(path)
    connection.execute(
        "update study_user_attributes set value_json=? where key='winners'", [planted]
    )
    connection.commit()
    assert "holds what no search of percoin wrote (" in refusal(tmp_path)


def winner_facts() -> dict:
    return {"study": "a-1", "trials": 3, "run": "20250101-000000"}


@pytest.mark.parametrize("bars", [5, {"first": 10**30, "last": 1}, {"first": "x"}, {"last": -1}])
def test_facts_that_no_search_wrote_are_one_clear_line(tmp_path, bars):
    begin(tmp_path, bars=bars)
    assert "holds what no search of percoin wrote (ValueError: " in refusal(tmp_path)


def lose_an_open_book(folder: Path) -> None:
    with open_studies(folder, MARKET) as studies:
        (folder / STUDY_FILE).write_text("not a database " * 1000)
        studies.begin("a", {})


def test_a_file_that_is_lost_on_the_way_is_one_clear_line(tmp_path):
    with pytest.raises(StudyError, match=r"study\.db cannot be used"):
        lose_an_open_book(tmp_path)


@pytest.mark.parametrize("name", ["with space", "what?", "50%25", "{braces}", "a#b", "ünïcode"])
def test_a_folder_may_have_any_name(tmp_path, name):
    folder = tmp_path / name
    with open_studies(folder, MARKET) as studies:
        studies.begin("a", {})
    assert (folder / STUDY_FILE).stat().st_size > 0
    assert {path.name for path in folder.iterdir()} == {STUDY_FILE, "study.lock"}
