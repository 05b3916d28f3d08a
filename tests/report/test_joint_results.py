from dataclasses import replace

import pytest
from report_builders import NOW, draft, judged, losses

from percoin.report.joint_results import in_a_sentence, joint_results
from percoin.report.reading import Course, SavedModel
from percoin.types import Timeframe

EVALUATION = judged(n_rows=400)


def model(symbol, timeframe="15m", daily=None, variant="", evaluation=EVALUATION):
    files = ["cnn_lstm_best.pth", "cnn_lstm_v1.pth", "scaler.pkl", "metrics.json"]
    manifest = draft(symbol, timeframe, evaluation).seal(NOW, dict.fromkeys(files, "ab" * 32))
    return SavedModel(
        symbol,
        Timeframe(timeframe),
        manifest,
        evaluation,
        course=Course(daily),
        variant=variant,
    )


def test_models_are_averaged_by_bar_length_and_variant():
    groups = joint_results(
        [
            model("BTCUSDT", "1h"),
            model("ETHUSDT", "1h"),
            model("BTCUSDT", "15m", variant="lr=0.1"),
            model("ETHUSDT", "15m", variant="lr=0.1"),
            model("ETHUSDT", "15m", variant="lr=0.2"),
            SavedModel("SOLUSDT", Timeframe.H1, problem="broken"),
        ]
    )

    assert [group.name for group in groups] == ["15m lr=0.1", "1h"]
    assert [group.skill.n_models for group in groups] == [2, 2]


def test_the_mean_is_over_the_days_of_all_markets():
    models = [model(f"M{k}USDT", daily=losses(0.03, seed=k)) for k in range(4)]
    (group,) = joint_results(models)

    assert group.skill.n_days == 40
    assert group.skill.lower < 0.03 < group.skill.upper
    assert group.lead.value == pytest.approx(group.skill.value)
    assert "over the same 40 days for all" in in_a_sentence(group)


def test_what_the_networks_add_is_a_mean_over_the_models_that_have_more_than_one():
    daily = [losses(0.03, seed=k) for k in range(3)]
    known = [
        replace(each, without_network=tuple(loss + 0.02 * n for loss, n in rows))
        for each in daily[:2]
        if (rows := list(zip(each.model, each.n_rows, strict=True)))
    ]
    models = [model(f"M{k}USDT", daily=each) for k, each in enumerate([*known, daily[2]])]
    (both,), (all_three,) = joint_results(models[:2]), joint_results(models)
    (nobody,) = joint_results([model("AUSDT", daily=daily[2]), model("BUSDT", daily=daily[2])])

    assert both.network_adds.value == pytest.approx(0.02)
    assert "and their networks add +0.0200" in in_a_sentence(both)
    assert all_three.network_adds.value == pytest.approx(0.02)
    assert "and the networks of 2 add +0.0200" in in_a_sentence(all_three)
    assert nobody.network_adds is None
    assert " add " not in in_a_sentence(nobody)


def test_networks_without_which_the_others_are_surely_better_are_told_with_what_to_do():
    daily = [losses(0.03, seed=k) for k in range(2)]
    better = [
        replace(each, without_network=tuple(loss - 0.02 * n for loss, n in rows))
        for each in daily
        if (rows := list(zip(each.model, each.n_rows, strict=True)))
    ]
    (both,) = joint_results([model(f"M{k}USDT", daily=each) for k, each in enumerate(better)])
    assert "their networks add -0.0200" in in_a_sentence(both)
    assert "without them: better alone, by model=average" in in_a_sentence(both)


def test_markets_that_move_as_one_prove_no_more_than_one_of_them():
    one = joint_results([model(f"M{k}USDT", daily=losses(seed=1)) for k in range(2)])[0].skill
    many = joint_results([model(f"M{k}USDT", daily=losses(seed=1)) for k in range(32)])[0].skill
    apart = joint_results([model(f"M{k}USDT", daily=losses(seed=k)) for k in range(32)])[0].skill

    assert (many.lower, many.upper) == pytest.approx((one.lower, one.upper))
    assert apart.upper - apart.lower < (many.upper - many.lower) / 3


def test_without_all_losses_by_day_the_interval_is_the_widest():
    (group,) = joint_results([model("BTCUSDT", daily=losses()), model("ETHUSDT")])
    own = EVALUATION.model.skill

    assert group.skill.n_days is None
    assert (group.skill.lower, group.skill.upper) == pytest.approx((own.lower, own.upper))
    assert "if all err together" in in_a_sentence(group)


def test_too_few_days_or_rows_give_no_interval():
    few = joint_results([model(f"M{k}USDT", daily=losses(n_days=6)) for k in range(2)])[0]
    skill = replace(EVALUATION.model.skill, lower=None, upper=None)
    small = replace(EVALUATION, model=replace(EVALUATION.model, skill=skill))
    unknown = joint_results([model("BTCUSDT", evaluation=small), model("ETHUSDT")])[0]

    assert (few.skill.lower, unknown.skill.lower) == (None, None)
    assert "6 days are too few for an interval" in in_a_sentence(few)
