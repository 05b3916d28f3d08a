from dataclasses import replace

import pytest
from report_builders import NOW, draft, export, judged, registry

from percoin.evaluation.backtest import Exit
from percoin.evaluation.blend import PartSkill, PartSkills
from percoin.evaluation.gate import Outcome
from percoin.evaluation.regression import Regression
from percoin.intervals import KnownInterval
from percoin.registry.manifest import BLEND_PARTS, Blend, Gate, StoredVerdict
from percoin.registry.parts import Calibration
from percoin.report.board import (
    BoardStatus,
    answer,
    headlines,
    in_words,
    majority_share,
    make_board,
    sweep_note,
)
from percoin.report.board import test_days as days_of_test
from percoin.report.cells import facts
from percoin.report.reading import Course, Judging, SavedModel, read_models
from percoin.types import LevelsReached, Timeframe


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return make_board(read_models(registry(tmp_path_factory.mktemp("models"))), NOW)


def by_name(board):
    return {entry.model.name: entry for entry in board.entries}


def model(symbol, evaluation, **changes):
    manifest = draft(symbol, "15m", evaluation).seal(
        NOW,
        dict.fromkeys(
            ["cnn_lstm_best.pth", "cnn_lstm_v1.pth", "scaler.pkl", "metrics.json"], "ab" * 32
        ),
    )
    return SavedModel(symbol, Timeframe.M15, replace(manifest, **changes), evaluation)


def with_p_value(evaluation, p_value):
    return replace(evaluation, verdict=replace(evaluation.verdict, p_value=p_value))


def test_every_status_is_told_apart(board):
    assert {name: entry.status.value for name, entry in by_name(board).items()} == {
        "BTCUSDT 15m": "accepted",
        "BTCUSDT 1h": "accepted",
        "ETHUSDT 15m": "rejected",
        "SOLUSDT 1d": "untestable",
        "XRPUSDT 15m": "not judged",
        "ADAUSDT 15m": "broken",
        "POLUSDT 4h": "broken",
    }


def test_the_order_is_by_skill_and_what_has_none_follows(board):
    skills = [e.model.evaluation.model.skill.value for e in board.entries if e.model.evaluation]

    assert skills == sorted(skills, reverse=True)
    assert [entry.rank for entry in board.entries] == [1, 2, 3, 4, None, None, None]
    assert [entry.model.name for entry in board.entries[4:]] == [
        "XRPUSDT 15m",
        "ADAUSDT 15m",
        "POLUSDT 4h",
    ]


def test_people_are_told_what_was_shown(board):
    told = {name: (entry.shown, entry.short_reason) for name, entry in by_name(board).items()}
    assert told["BTCUSDT 15m"][0] == "skill shown"
    assert told["BTCUSDT 15m"][1].startswith(("ahead of ", "level with "))
    assert told["ETHUSDT 15m"] == ("no skill shown", "hardly more than a constant answer")
    assert told["SOLUSDT 1d"] == ("too few rows to tell", "")
    assert told["XRPUSDT 15m"][0] == "not judged"


def test_skill_behind_its_rival_is_not_called_none():
    evaluation = judged()
    lead = replace(evaluation.lead, value=-0.01, lower=-0.02, upper=-0.005)
    rejected = replace(evaluation.verdict, outcome=Outcome.REJECTED)
    behind = replace(evaluation, against_best=lead, against_rival=lead, verdict=rejected)
    entry = make_board([model("BTCUSDT", behind)], NOW).entries[0]
    assert (entry.status.value, entry.shown) == ("rejected", "behind its rival")
    assert entry.short_reason == f"skill shown, behind {evaluation.rival_name}"


def test_the_answer_counts_what_is_accepted(board):
    assert answer(board) == "2 of 7 models have shown skill."
    assert board.counts[BoardStatus.BROKEN] == 2
    assert board.tested == "tests of 2025-01-25 to 2025-01-31"


def test_a_model_that_passes_alone_may_fail_among_many():
    accepted = judged()
    assert accepted.verdict.outcome is Outcome.ACCEPTED
    lucky = model("BTCUSDT", with_p_value(accepted, 0.02))
    others = [
        model(f"M{k}USDT", with_p_value(judged(constant=True, n_rows=200), 0.5)) for k in range(9)
    ]

    alone, among = make_board([lucky], NOW), make_board([lucky, *others], NOW)

    assert alone.entries[0].status is BoardStatus.ACCEPTED
    assert among.entries[0].status is BoardStatus.REJECTED
    assert (
        among.entries[0].reasons[0].startswith("not significant among the 10 models tried: p=0.02")
    )
    assert (among.n_tried, among.n_lost) == (10, 1)
    assert answer(among) == "None of the 10 models has shown skill."
    assert sweep_note(among).endswith("judged alone 1 would show skill, judged together 0.")


def test_an_acceptance_that_was_withdrawn_is_not_counted_as_skill_shown():
    withdrawn = model("BTCUSDT", judged())
    gate = Gate(StoredVerdict.REJECTED, ("its live skill fell",))
    withdrawn = replace(withdrawn, manifest=replace(withdrawn.manifest, gate=gate))
    other = model("ETHUSDT", judged(constant=True, n_rows=200))

    board = make_board([withdrawn, other], NOW)

    told = by_name(board)["BTCUSDT 15m"]
    assert (told.shown, told.short_reason) == ("no skill shown", "its live skill fell")
    assert answer(board) == "None of the 2 models has shown skill."
    assert sweep_note(board).endswith(
        "judged alone 1 would show skill, judged together 0, 1 withdrawn since."
    )
    both = make_board([withdrawn, model("ETHUSDT", judged())], NOW)
    assert answer(both) == "1 of 2 models has shown skill."
    assert sweep_note(both).endswith(
        "judged alone 2 would show skill, judged together 1, 1 withdrawn since."
    )


def simulated(symbol, evaluation, daily=None):
    found = model(symbol, evaluation)
    bars = replace(found.manifest.bars, origin="simulated: edge 0, seed 7")
    return replace(found, manifest=replace(found.manifest, bars=bars), course=Course(daily))


def test_simulated_markets_take_no_part_in_what_is_said_of_real_ones():
    lucky = with_p_value(judged(), 0.02)
    real = [model("BTCUSDT", lucky), model("ETHUSDT", judged(constant=True, n_rows=200))]
    real[1] = replace(real[1], evaluation=with_p_value(real[1].evaluation, None))
    played = [simulated(f"M{k}USDT", with_p_value(judged(edge=3), 0.9)) for k in range(9)]

    board, alone = make_board([*played, *real], NOW), make_board(real, NOW)

    assert by_name(board)["BTCUSDT 15m"] == alone.entries[0]
    assert alone.entries[0].status is BoardStatus.ACCEPTED
    assert answer(board) == answer(alone) == "1 of 2 models has shown skill."
    assert (board.n_tried, board.n_lost, board.joint) == (1, 0, alone.joint)
    assert board.counts == alone.counts
    assert headlines(board)[0] == "9 models are of simulated markets, judged apart and not counted."
    assert [entry.rank for entry in board.entries] == list(range(1, 12))
    assert [entry.model.name for entry in board.entries[:2]] == ["BTCUSDT 15m", "ETHUSDT 15m"]
    # Alone they are a report like any other.
    assert answer(make_board(played, NOW)) == "None of the 9 models has shown skill."


def tried(symbol, n_trials, n_markets, config):
    """A model that was judged in a run of so many markets, as its metrics.json has it."""
    evaluation = judged()
    model_line, hold = evaluation.money
    baseline = replace(model_line, name=evaluation.rival_name, n_trials=1)
    money = (replace(model_line, n_trials=n_trials), baseline)
    money = (*(result.shown_among(n_markets) for result in money), hold)
    saved = model(symbol, replace(evaluation, money=money))
    return replace(saved, manifest=replace(saved.manifest, config=config))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"trials": 5}, (5 * 4, 4)),
        # A run that kept no number of trials.
        ({}, (5 * 3 * 4, 4)),
        ({"trials": "five"}, (5 * 3 * 4, 4)),
        ({"trials": 0}, (5 * 3 * 4, 4)),
    ],
)
def test_the_markets_of_a_pool_are_counted_once_in_the_luck_of_trading(config, expected):
    models = [tried(f"M{k}USDT", 5, 3, config) for k in range(3)]
    alone = tried("BTCUSDT", 5, 1, {"trials": 5})

    board = make_board([*models, alone], NOW)

    for entry in board.entries:
        mine, baseline, _ = entry.model.evaluation.money
        if entry.model.symbol == "BTCUSDT":
            assert (mine.n_trials, baseline.n_trials) == (5 * 4, 4)
        else:
            assert (mine.n_trials, baseline.n_trials) == expected
        assert mine.deflated_sharpe == mine.moments.deflated(mine.n_trials)


def test_one_market_of_a_pool_has_the_luck_of_the_whole_pool():
    board = make_board([tried("BTCUSDT", 5, 8, {"trials": 5})], NOW)
    mine, baseline, _ = board.entries[0].model.evaluation.money
    assert (mine.n_trials, baseline.n_trials) == (40, 8)


def test_one_model_is_named_and_the_reader_is_warned_of_a_hidden_search():
    board = make_board([model("BTCUSDT", judged())], NOW)

    assert answer(board) == "BTCUSDT 15m: skill shown."
    assert "luck finds a winner among many" in sweep_note(board)


def test_models_of_simulated_bars_and_those_of_another_verdict_carry_a_caution():
    evaluation = judged()
    saved = model("BTCUSDT", evaluation)
    bars = replace(saved.manifest.bars, origin="simulated: seed 3")
    gate = Gate(StoredVerdict.REJECTED, ("leaks",))
    odd = replace(saved, manifest=replace(saved.manifest, bars=bars, gate=gate))

    entry = make_board([odd], NOW).entries[0]

    assert entry.cautions[0] == "its bars were simulated: it says nothing about a real market"
    assert (entry.status, entry.reasons) == (BoardStatus.REJECTED, ("leaks",))
    assert entry.passed_alone


def test_a_manifest_that_accepts_what_was_rejected_is_mentioned():
    saved = model("BTCUSDT", judged(constant=True))
    odd = replace(
        saved, manifest=replace(saved.manifest, gate=Gate(StoredVerdict.ACCEPTED, ("no",)))
    )

    entry = make_board([odd], NOW).entries[0]

    assert entry.status is BoardStatus.REJECTED
    assert entry.cautions[0] == "its manifest says accepted: no"


def test_a_lead_over_the_rival_must_stand_among_all_too():
    evaluation = judged()

    def ahead(symbol, p_value):
        lead = replace(evaluation.lead, p_value=p_value)
        return model(symbol, replace(evaluation, against_rival=lead))

    others = [ahead(f"M{k}USDT", 0.6) for k in range(9)]
    board = make_board([ahead("BTCUSDT", 1e-5), ahead("ETHUSDT", 0.02), *others], NOW)

    assert [entry.model.symbol for entry in board.entries if entry.leads] == ["BTCUSDT"]
    assert headlines(board)[-1].endswith("1 of 11 models (BTCUSDT 15m).")


def test_a_job_without_a_model_is_told_and_not_counted_among_the_models():
    gone = SavedModel("ETHUSDT", Timeframe.M15, problem="its training failed", exists=False)

    board = make_board([model("BTCUSDT", judged()), gone], NOW, notes=["One of 2 jobs failed."])

    assert board.entries[-1].status is BoardStatus.NO_MODEL
    assert board.entries[-1].reasons == ("its training failed",)
    assert answer(board) == "BTCUSDT 15m: skill shown."
    assert headlines(board)[0] == "One of 2 jobs failed."
    assert len(headlines(board)) == 2
    assert answer(make_board([gone, replace(gone, symbol="A")], NOW)) == "No job left a model."


def test_models_of_one_market_are_told_apart_by_their_variant():
    saved = model("BTCUSDT", judged())
    board = make_board([replace(saved, variant=f"lr={k}") for k in (0.1, 0.01)], NOW)

    assert {entry.model.name for entry in board.entries} == {
        "BTCUSDT 15m lr=0.1",
        "BTCUSDT 15m lr=0.01",
    }
    assert len({entry.anchor for entry in board.entries}) == 2
    assert board.n_tried == 2


def test_the_words_say_what_the_figures_say():
    evaluation = judged(edge=2.0)
    entry = make_board([model("BTCUSDT", evaluation)], NOW).entries[0]

    skill, activity, direction, money = in_words(entry)

    value = evaluation.model.skill.value
    assert f"its probabilities were {value:.1%} better (log-loss)" in skill
    assert f"right one {evaluation.model.activity.auc.value:.0%} of the time" in activity
    assert "that cannot be told from a coin flip" in direction
    assert f"buying and holding made {evaluation.money[1].net_return:+.1%}" in money
    assert f"needed {evaluation.money[0].break_even_hit_rate:.0%}" in money


def test_a_skill_below_zero_is_called_worse_with_its_interval():
    evaluation = judged()
    skill = replace(evaluation.model.skill, value=-0.026, lower=-0.055, upper=0.003)
    worse = replace(evaluation, model=replace(evaluation.model, skill=skill))

    sentence = in_words(make_board([model("BTCUSDT", worse)], NOW).entries[0])[0]

    assert "were 2.6% worse (log-loss)" in sentence
    assert sentence.endswith("likely between 5.5% worse and 0.3% better.")


@pytest.mark.parametrize(("timeframe", "n_days"), [(Timeframe.M15, 7), (Timeframe.D1, 672)])
def test_the_recent_shares_are_those_of_as_many_days_as_the_timeframe_has(timeframe, n_days):
    evaluation = judged()
    recent = replace(evaluation.model.skill, value=0.01)
    evaluation = replace(evaluation, model=replace(evaluation.model, recent_skill=recent))
    saved = replace(model("BTCUSDT", evaluation), timeframe=timeframe)
    sentence = in_words(make_board([saved], NOW).entries[0])[0]
    assert f"Than quoting those of the last {n_days} days they were 1.0% better." in sentence


def test_a_model_without_evaluation_has_no_words_for_figures():
    assert in_words(make_board([model("BTCUSDT", None)], NOW).entries[0]) == []


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (((1, 2, 3), (0, 90, 0), (4, 0, 0)), ("NO_TRADE", 0.9)),
        (((0, 0, 0), (0, 0, 0), (0, 1, 1)), ("LONG", 1.0)),
    ],
)
def test_the_majority_is_that_of_the_labels_not_of_the_decisions(matrix, expected):
    assert majority_share(matrix) == expected


def test_a_registry_of_broken_models_alone_has_no_dates(tmp_path):
    (export(tmp_path) / "meta.json").write_text("")

    board = make_board(read_models(tmp_path), NOW)

    assert board.tested == ""
    assert board.n_tried == 0
    assert sweep_note(board) == "No model has been judged."


def test_models_that_were_judged_on_too_few_bars_are_not_called_unjudged():
    few = make_board([model("BTCUSDT", judged(n_rows=12))], NOW)
    assert few.n_tried == 0
    assert sweep_note(few).startswith("No model has been judged on enough test bars")
    assert sweep_note(make_board([model("BTCUSDT", None)], NOW)) == "No model has been judged."


def test_of_a_walk_forward_only_the_end_is_dated():
    folds = replace(model("BTCUSDT", judged(n_rows=300)), judging=Judging(n_folds=5))
    single = model("ETHUSDT", judged(n_rows=300))

    board = make_board([folds, single], NOW)

    assert board.tested == "tests until 2025-01-31"
    assert {days_of_test(entry.model)[0] for entry in board.entries} == {
        "fold 1 of 5",
        "2025-01-25",
    }
    assert ("judged on", "300 test bars") in facts(single)
    assert "5 folds of a walk-forward" in dict(facts(folds))["judged on"]


def test_another_exit_and_the_levels_are_told_where_they_are_known():
    plain = model("BTCUSDT", judged(n_rows=300))
    assert not {"exit", "levels"} & set(dict(facts(plain)))

    share = KnownInterval(0.25, 0.2, 0.3)
    levels = LevelsReached(700, share, share, share, share)
    told = dict(facts(replace(plain, judging=Judging(exit=Exit.LEVELS, levels=levels))))
    assert told["exit"].startswith("positions close at the stop or the first target")
    assert "700 judged signals reached the stop in 0.250 [0.200, 0.300]" in told["levels"]


def test_a_blend_says_what_it_is_made_of_and_how_good_each_part_is():
    plain = model("BTCUSDT", judged(n_rows=300))
    assert dict(facts(plain))["model"] == "cnn_lstm"
    skills = PartSkills(PartSkill(0.5), PartSkill(0.02, 0.01, 0.03))
    blended = replace(
        plain.manifest,
        regression=Regression(((0.5,) * 15,) * 3, (0.0,) * 3),
        blend=Blend(0.25, Calibration(), dict.fromkeys(BLEND_PARTS, skills)),
        format_version=2,
    )
    shown = "+0.0200 [+0.0100, +0.0300]"
    assert dict(facts(replace(plain, manifest=blended)))["model"] == (
        "cnn_lstm, averaged: 0.25 network + 0.75 logistic regression; "
        f"skill on the test bars: network {shown}, logistic {shown}, blend {shown}"
    )
