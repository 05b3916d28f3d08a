import re

import pytest
from summary_builders import SYMBOLS, ended, finished, kept, lacking

from percoin.sweep.jobs import JobState
from percoin.sweep.results import arrange, gather
from percoin.sweep.summary import SweepSummary

ERROR = (
    "131 rows have a label, 400 are needed for a lookback of 60 and a split of 70/15/15; "
    "use a longer history_days or a finer tf"
)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def screen(results, width=80, colour=False):
    return SweepSummary(results, (), (), ()).render(width, colour)


def results_of(root, jobs):
    return gather(root, jobs, root / "m", 5.0)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """By number of jobs: the beginning of a full sweep, with jobs of every state."""
    folder = tmp_path_factory.mktemp("sweep") / "sweep-1"
    states = {
        5: (JobState.FAILED, ERROR),
        40: (JobState.KILLED, "killed by SIGKILL, twice"),
        90: (JobState.INTERRUPTED, "told to stop"),
        91: (JobState.WAITING, None),
    }
    jobs, models = [], {}
    for tf in ("15m", "1h", "4h", "1d"):
        for symbol in SYMBOLS:
            number = len(jobs)
            skill = 0.03 - 0.0005 * number
            if number in states:
                entry = ended(folder, symbol, *states[number], tf=tf)
                model = lacking(entry)
            else:
                entry, model = kept(folder, symbol, skill, max(1e-9, -skill), tf)
            jobs.append(entry)
            models[entry[0].name] = model
    return {
        n: arrange(folder, jobs[:n], {job.name: models[job.name] for job, _ in jobs[:n]}, 3_754.0)
        for n in (1, 8, 32, 128)
    }


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("n_jobs", [1, 32, 128])
def test_every_job_has_its_line_and_none_is_too_long(sweep, width, n_jobs):
    lines = screen(sweep[n_jobs], width).splitlines()

    assert max(map(len, lines)) <= width
    for result in sweep[n_jobs].jobs:
        start = rf"{re.escape(result.job.name)} +\w+ +\d"
        (line,) = [line for line in lines if re.match(start, line)]
        assert result.record.state.value in line.lower()
        assert "12/50 3m 12s" in line or "3/50" in line


def test_the_tables_say_it_all_in_80_columns(sweep):
    lines = [" ".join(line.split()) for line in screen(sweep[8]).splitlines()]

    assert lines[0] == "sweep-1: 8 jobs, 7 finished, 1 failed. Took 1h 02m."
    assert lines[2] == "job state epochs time skill [95 %] act. dir. verdict"
    assert lines[3] == (
        "M00USDT 15m finished 12/50 3m 12s +.0300 [+.0220, +.0380] .802 .500 skill shown"
    )


def test_failures_come_last_and_are_named_with_their_error(sweep):
    text = screen(sweep[128], 140)
    lines = text.splitlines()
    last = lines[lines.index("2 of 128 jobs FAILED:") :]

    assert last == [
        "2 of 128 jobs FAILED:",
        f"  M05USDT 15m: {ERROR}",
        "  M08USDT 1h: killed by SIGKILL, twice",
    ]
    table = text[text.index("error") : text.index("leaderboard")]
    names = re.findall(r"^(M\d\dUSDT \w+) +(\w+)", table, re.M)
    assert names == [
        ("M26USDT 4h", "interrupted"),
        ("M27USDT 4h", "waiting"),
        ("M05USDT 15m", "FAILED"),
        ("M08USDT 1h", "KILLED"),
    ]


def test_the_leaderboard_holds_the_best_and_says_how_many_there_are(sweep):
    text = screen(sweep[128], 140)
    board = text[text.index("leaderboard") :]
    ranks = re.findall(r"^ *(\d+) (\w+ \w+) .*train_prior", board, re.M)

    assert [int(rank) for rank, _ in ranks] == list(range(1, 21))
    assert ranks[0][1] == "M00USDT 15m"
    assert "and 104 more: the report has all of them" in board
    assert "would show skill, judged together" in " ".join(board.split())
    assert "15m: the 31 models' mean skill is" in board


def test_a_model_that_passed_alone_only_is_marked(tmp_path):
    jobs = [finished(tmp_path, tmp_path / "m", "ETHUSDT", 0.01, 0.02)]
    assert "only alone" not in screen(results_of(tmp_path, jobs))
    jobs += [finished(tmp_path, tmp_path / "m", symbol, 0.0, 0.5) for symbol in SYMBOLS[:6]]

    line = next(
        line
        for line in screen(results_of(tmp_path, jobs)).splitlines()
        if line.startswith("ETHUSDT 15m")
    )

    assert line.endswith("only alone")


def test_a_long_name_gives_way_and_loses_nothing(tmp_path):
    variant = "lr=0.0001,optimizer.weight_decay=1e-05,labels=triple_barrier"
    jobs = [
        finished(tmp_path, tmp_path / "m", symbol, 0.02, 1e-6, variant=variant)
        for symbol in ("BTCUSDT", "ETHUSDT")
    ]

    lines = screen(results_of(tmp_path, jobs)).splitlines()

    assert max(map(len, lines)) <= 80
    table = lines[3 : lines.index("leaderboard") - 1]
    folded = "".join(line[: len("lr=0.0001,op")].strip() for line in table)
    assert "ETHUSDT" in folded
    assert sum("+.0200 [+.0120, +.0280]" in line for line in table) == 2


@pytest.mark.parametrize("colour", [False, True])
def test_hostile_texts_move_no_cursor_and_are_no_markup(tmp_path, colour):
    error = "\x1b[2J[bold]gone[/bold] \x9b1A\x07 [link=http://x]x[/link] \r\nsecond line \u202e"
    jobs = [ended(tmp_path, "BTCUSDT", JobState.FAILED, error)]

    text = ANSI.sub("", screen(results_of(tmp_path, jobs), 140, colour))

    assert all(character.isprintable() for character in text.replace("\n", ""))
    assert r"\x1b[2J[bold]gone[/bold] \x9b1A\x07 [link=http://x]x[/link] second line \u202e" in text


def test_colour_is_sent_to_those_who_want_it_and_changes_no_word(sweep):
    plain, coloured = (screen(sweep[8], 80, colour) for colour in (False, True))

    assert "\x1b" not in plain
    assert "\x1b[1;31m" in coloured
    assert [line.rstrip() for line in ANSI.sub("", coloured).splitlines()] == plain.splitlines()


def test_a_sweep_without_any_model_is_told_plainly(tmp_path):
    jobs = [ended(tmp_path, symbol, JobState.FAILED, "no bars") for symbol in SYMBOLS[:3]]

    text = screen(results_of(tmp_path, jobs))

    assert "No job left a model." in text
    assert "leaderboard" not in text
    assert text.splitlines()[-3:] == [f"  {symbol} 15m: no bars" for symbol in SYMBOLS[:3]]
