from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.stats import t as student

from percoin.evaluation.uncertainty import MOST_BLOCKS
from percoin.retrain.decisions import (
    Absent,
    Cause,
    Condition,
    DueRules,
    FurthestDrift,
    LiveSkill,
    MarketState,
    Verb,
    decide,
    decide_for_pool,
    held_up,
    lasting_upper,
)
from percoin.types import Timeframe

NOW = datetime(2026, 3, 1, 3, 10, tzinfo=UTC)
RULES = DueRules(
    max_age_days=30,
    max_new_bars_share=0.1,
    max_drift=2,
    min_resolved=200,
    demote_error=0.05,
    pool_due_share=0.5,
    retry_days=7,
)
FRESH = MarketState(
    symbol="BTCUSDT",
    timeframe=Timeframe.M15,
    condition=Condition.ACCEPTED,
    data_end=NOW - timedelta(days=3),
    n_bars=35_000,
    n_new_bars=288,
    drift=FurthestDrift("volatility", 0.3, 0.9),
    live=LiveSkill(0.01, -0.005, 0.025, 500, 300.0, 180.0),
    gate_lower=0.004,
    last_tried=NOW - timedelta(days=8),
)


def decided(**changes):
    return decide(replace(FRESH, **changes), RULES, NOW)


def only_due(decision):
    (reason,) = [reason for reason in decision.reasons if reason.is_due]
    return reason


def test_a_fresh_model_is_kept_and_every_reason_has_its_number_and_its_key():
    decision = decided()
    assert decision.verb is Verb.KEEP
    assert [reason.text for reason in decision.reasons] == [
        "its data ends 3.0 days ago, at most max_age_days=30",
        "288 new bars since, 0.008, below max_new_bars_share=0.1 of the 35,000 that it was made "
        "from",
        "volatility has drifted by 0.300, 0.9 times as far as within its train rows, at most "
        "max_drift=2",
        "live skill +0.0100 [-0.0050, +0.0250] of 500 predictions, 300 independent ones, not below "
        "+0.0040, the least that its gate accepted it for (min_resolved=200)",
    ]
    assert not any(reason.is_due for reason in decision.reasons)


@pytest.mark.parametrize(
    ("changes", "cause", "text"),
    [
        (
            {"data_end": NOW - timedelta(days=30.5)},
            Cause.AGE,
            "its data ends 30.5 days ago, more than max_age_days=30",
        ),
        (
            {"n_new_bars": 3_500},
            Cause.NEW_BARS,
            "3,500 new bars since, 0.100, not below max_new_bars_share=0.1 of the 35,000",
        ),
        (
            {"drift": FurthestDrift("atr_14", 0.26, 2.1)},
            Cause.DRIFT,
            "atr_14 has drifted by 0.260, 2.1 times as far as within its train rows, more than "
            "max_drift=2",
        ),
        (
            {"live": LiveSkill(-0.01, -0.022, 0.002, 500, 300.0, 180.0)},
            Cause.LIVE_SKILL,
            "all of it below +0.0040, the least that its gate accepted it for",
        ),
        (
            {"condition": Condition.NOT_ACCEPTED, "said": "rejected, no skill shown"},
            Cause.REJECTED,
            "no accepted model is served: rejected, no skill shown",
        ),
        (
            {"condition": Condition.MISSING, "said": "no model exported", "data_end": None},
            Cause.MISSING,
            "it has no model: no model exported",
        ),
        (
            {"condition": Condition.INVALID, "said": "scaler.pkl is missing", "data_end": None},
            Cause.INVALID,
            "its model cannot be loaded: scaler.pkl is missing",
        ),
    ],
)
def test_each_cause_alone_makes_a_model_due_and_comes_first(changes, cause, text):
    decision = decided(**changes)
    assert decision.verb is Verb.TRAIN
    assert decision.reasons[0] == only_due(decision)
    assert decision.reasons[0].cause is cause
    assert text in decision.reasons[0].text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"n_new_bars": 0}, "there is no new bar, so a training would give the same model"),
        (
            {"last_tried": NOW - timedelta(days=6)},
            "it was trained 6.0 days ago, less than retry_days=7",
        ),
        ({"obstacle": "its network belongs to 30 markets"}, "its network belongs to 30 markets"),
    ],
)
@pytest.mark.parametrize("condition", [Condition.ACCEPTED, Condition.NOT_ACCEPTED])
def test_what_is_due_may_have_to_wait_and_both_are_said(changes, text, condition):
    decision = decided(data_end=NOW - timedelta(days=40), condition=condition, **changes)
    assert decision.verb is Verb.KEEP
    assert decision.reasons[0].text == text
    assert decision.reasons[-1].cause is Cause.AGE


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"data_end": NOW - timedelta(days=30.04)},
            "its data ends 30.04 days ago, more than max_age_days=30",
        ),
        ({"data_end": NOW - timedelta(days=30)}, "its data ends 30.0 days ago, at most max_age"),
        (
            {"data_end": NOW + timedelta(days=900)},
            "its data ends 900.0 days in the future: look at the clock",
        ),
        ({"n_new_bars": 0}, "no new bar since"),
        ({"n_new_bars": 1}, "1 new bar since, 0.000, below"),
        ({"n_new_bars": 3_499}, "3,499 new bars since, 0.09997, below max_new_bars_share=0.1"),
        (
            {"drift": FurthestDrift("rsi_14", 0.2, 2.01)},
            "rsi_14 has drifted by 0.200, 2.01 times as far as within its train rows, more than",
        ),
        (
            {"last_tried": NOW - timedelta(days=6.99), "data_end": NOW - timedelta(days=40)},
            "it was trained 6.99 days ago, less than retry_days=7",
        ),
        (
            {"last_tried": NOW + timedelta(hours=1), "data_end": NOW - timedelta(days=40)},
            "it was trained 0.0 days ago, less than retry_days=7",
        ),
        (
            {
                "last_tried": datetime(9998, 1, 2, 3, 4, tzinfo=UTC),
                "data_end": NOW - timedelta(days=40),
            },
            "it was trained at 9998-01-02 03:04, which is in the future: look at the clock, or "
            "give retry_days=0",
        ),
        ({"gate_lower": None}, "; its gate measured no skill to compare it with"),
        (
            {"live": LiveSkill(0.01, 0.0, 0.02, 500, 199.9, 180.0)},
            "too few to judge: min_resolved=200",
        ),
    ],
)
def test_every_text_is_true_of_its_numbers(changes, text):
    assert any(text in reason.text for reason in decided(**changes).reasons)


def test_what_is_asked_for_at_once_is_trained_though_a_clock_was_wrong():
    late = replace(FRESH, last_tried=NOW + timedelta(days=9_000), data_end=NOW - timedelta(days=40))
    assert decide(late, replace(RULES, retry_days=0), NOW).verb is Verb.TRAIN


@pytest.mark.parametrize(
    ("changes", "verb"),
    [
        ({"data_end": NOW - timedelta(days=30)}, Verb.KEEP),
        ({"data_end": NOW - timedelta(days=30, seconds=1)}, Verb.TRAIN),
        ({"n_new_bars": 3_499}, Verb.KEEP),
        ({"n_new_bars": 3_500}, Verb.TRAIN),
        ({"drift": FurthestDrift("rsi_14", 0.2, 2.0)}, Verb.KEEP),
        ({"live": LiveSkill(0.0, -0.01, 0.0039, 500, 200.0, 180.0)}, Verb.TRAIN),
        ({"live": LiveSkill(0.0, -0.01, 0.004, 500, 200.0, 180.0)}, Verb.KEEP),
        ({"live": LiveSkill(0.0, -0.01, 0.0039, 500, 199.0, 180.0)}, Verb.KEEP),
    ],
)
def test_each_limit_belongs_to_the_side_that_its_setting_names(changes, verb):
    assert decided(**changes).verb is verb


def test_a_market_without_one_new_bar_is_not_due_whatever_share_is_enough():
    none = replace(RULES, max_new_bars_share=0.0)
    assert decide(replace(FRESH, n_new_bars=0), none, NOW).verb is Verb.KEEP
    assert decide(replace(FRESH, n_new_bars=1), none, NOW).verb is Verb.TRAIN


def test_the_causes_come_before_what_was_looked_at_and_objections_before_the_causes():
    due = decided(drift=FurthestDrift("atr_14", 0.26, 2.1))
    assert [reason.cause for reason in due.reasons] == [
        *(Cause.DRIFT, Cause.AGE, Cause.NEW_BARS, Cause.LIVE_SKILL),
    ]
    waits = decided(drift=FurthestDrift("atr_14", 0.26, 2.1), obstacle="no source", last_tried=NOW)
    assert [reason.cause for reason in waits.reasons] == [
        *(Cause.OBSTACLE, Cause.TRIED_LATELY, Cause.DRIFT),
    ]


def test_the_lasting_interval_is_that_of_the_normal_mixture():
    # By hand: -2 ln 0.05 = 5.99146, rho = 5.99146 + ln 6.99146 = 7.93616 after a year, and
    # reach = sqrt(8.93616 / 7.93616 * (ln 8.93616 + 5.99146)) = 3.03521, whose tail is 0.0012018.
    live = LiveSkill(-0.01, -0.02, 0.0, 5_000, 1_000.0, 365.0)
    wider = student.ppf(0.0012018, 15) / student.ppf(0.025, 15)
    assert lasting_upper(live, RULES) == pytest.approx(-0.01 + 0.01 * wider, abs=1e-6)


@given(st.floats(8, 300), st.floats(1, 60))
def test_a_short_record_needs_more_evidence_than_a_longer_one(n_days, more):
    short = LiveSkill(-0.01, -0.02, 0.0, 5_000, 1_000.0, n_days)
    assert lasting_upper(short, RULES) > lasting_upper(replace(short, n_days=n_days + more), RULES)


def test_a_record_of_a_moment_demotes_nothing():
    live = LiveSkill(-0.3, -0.31, -0.29, 5_000, 1_000.0, 1e-6)
    assert decided(live=live).verb is not Verb.DEMOTE


def test_a_year_of_looks_demotes_few_records_without_skill():
    """Skill that comes and goes for days, as that of a forecast does which knows nothing."""
    shocks = np.random.default_rng(5).standard_normal((200, 365 + 60))
    n_demoted = 0
    for record in lfilter([1], [1, -0.6], shocks, axis=1)[:, 60:]:
        for n_days in range(MOST_BLOCKS, 366, 7):
            means = [part.mean() for part in np.array_split(record[:n_days], MOST_BLOCKS)]
            value, error = np.mean(means), np.std(means, ddof=1) / np.sqrt(MOST_BLOCKS)
            half = error * student.ppf(0.975, MOST_BLOCKS - 1)
            live = LiveSkill(value, value - half, value + half, 9_000, 1_000.0, float(n_days))
            if live.upper < 0 and lasting_upper(live, RULES) < 0:
                n_demoted += 1
                break
    assert n_demoted / 200 <= 0.05


KEPT, DUE = decided(), decided(data_end=NOW - timedelta(days=40))


@pytest.mark.parametrize(
    ("n_due", "n_models", "share", "began", "verb", "text"),
    [
        (1, 2, 0.5, False, Verb.TRAIN, "1 of its 2 models is due, not below pool_due_share=0.5"),
        (1, 3, 0.5, False, Verb.KEEP, "and waits: 1 of its 3 models is due, below pool_due_share"),
        (2, 3, 0.5, False, Verb.TRAIN, "2 of its 3 models are due, not below pool_due_share=0.5"),
        (0, 3, 0.0, False, Verb.KEEP, "and waits: none of its 3 models is due, and one must be"),
        (0, 3, 0.5, True, Verb.TRAIN, "the training of its pool was interrupted and goes on"),
    ],
)
def test_a_pool_is_trained_as_one_or_waits(n_due, n_models, share, began, verb, text):
    rules = replace(RULES, pool_due_share=share)
    first, second = decide_for_pool([DUE, KEPT], n_due, n_models, rules, began)
    assert first.verb is verb
    assert (first.reasons[0].cause, first.reasons[0].is_due) == (Cause.POOL, verb is Verb.TRAIN)
    assert text in first.reasons[0].text
    assert first.reasons[1:] == DUE.reasons
    # A market that is not due has nothing to say of a pool that waits.
    assert second.verb is verb
    assert (second == KEPT) == (verb is Verb.KEEP)


def test_what_holds_a_training_up_comes_first_and_decides_nothing():
    held = held_up(DUE, "no bars")
    assert held.verb is Verb.KEEP
    assert (held.reasons[0].text, held.reasons[0].is_due) == ("no bars", False)
    assert held.reasons[1:] == DUE.reasons


def test_a_model_that_is_gone_is_trained_on_the_bars_there_are():
    assert decided(condition=Condition.MISSING, n_new_bars=Absent("no model")).verb is Verb.TRAIN
    assert decided(condition=Condition.INVALID, n_new_bars=0, data_end=None).verb is Verb.TRAIN


def test_what_is_not_known_is_said_and_decides_nothing():
    decision = decided(drift=Absent("no deciles"), live=Absent("no record"), n_new_bars=Absent("?"))
    assert decision.verb is Verb.KEEP
    texts = [reason.text for reason in decision.reasons]
    assert texts[1:] == ["new bars: ?", "drift: no deciles", "live skill: no record"]


def test_skill_that_is_gone_for_good_demotes_before_anything_else():
    gone = LiveSkill(-0.03, -0.045, -0.015, 5_000, 1_000.0, 180.0)
    decision = decided(live=gone, data_end=NOW - timedelta(days=90), obstacle="a pool")
    assert decision.verb is Verb.DEMOTE
    (reason,) = decision.reasons
    assert reason.text.startswith("its live skill is gone: live skill -0.0300 [-0.0450, -0.0150]")
    assert "demote_error=0.05" in reason.text


def test_one_interval_below_zero_is_not_enough_to_demote_when_it_is_looked_every_day():
    unlucky = LiveSkill(-0.0155, -0.0305, -0.0005, 5_000, 1_000.0, 180.0)
    assert decided(live=unlucky).verb is Verb.TRAIN


@pytest.mark.parametrize(
    "changes",
    [
        {"live": LiveSkill(-0.3, -0.4, -0.2, 800, 199.0, 180.0)},
        {"is_forced": True},
        {"condition": Condition.NOT_ACCEPTED},
    ],
)
def test_too_few_predictions_or_somebody_who_insists_demote_nothing(changes):
    gone = {"live": LiveSkill(-0.3, -0.4, -0.2, 5_000, 1_000.0, 180.0)}
    assert decided(**(gone | changes)).verb is not Verb.DEMOTE


def test_the_lasting_interval_is_wider_than_that_of_one_look_and_gives_less_for_less_error():
    live = LiveSkill(-0.01, -0.02, 0.0, 500, 300.0, 180.0)
    assert lasting_upper(live, RULES) > live.upper
    assert lasting_upper(live, replace(RULES, demote_error=0.01)) > lasting_upper(live, RULES)


VALUES = st.floats(-0.2, 0.2)
WIDTHS = st.floats(1e-4, 0.1)


@given(VALUES, WIDTHS, st.floats(0, 5_000), st.floats(0, 0.2))
def test_worse_evidence_never_takes_a_demotion_back(value, half, n_independent, loss):
    def verb(center: float) -> Verb:
        live = LiveSkill(center, center - half, center + half, 9_000, n_independent, 94.0)
        return decided(live=live, data_end=NOW - timedelta(days=3)).verb

    order = [Verb.KEEP, Verb.TRAIN, Verb.DEMOTE]
    assert order.index(verb(value - loss)) >= order.index(verb(value))


@given(st.floats(0, 400), st.integers(0, 50_000), st.floats(0, 3), st.sampled_from(list(Condition)))
def test_the_longer_a_market_waits_the_more_it_is_due(days, n_new, drift, condition):
    def verb(more: float) -> Verb:
        end = NOW - timedelta(days=days * more)
        moved = FurthestDrift("rsi_14", 0.2, drift * more)
        return decided(
            data_end=end, n_new_bars=int(n_new * more), drift=moved, condition=condition
        ).verb

    assert not (verb(1.0) is Verb.TRAIN and verb(2.0) is Verb.KEEP)


@given(st.floats(0, 60), st.sampled_from(list(Condition)))
def test_nothing_is_tried_again_before_its_time(days, condition):
    tried = NOW - timedelta(days=days)
    decision = decided(
        condition=condition, last_tried=tried, data_end=NOW - timedelta(days=90), n_new_bars=9_000
    )
    assert (decision.verb is Verb.TRAIN) == (days >= RULES.retry_days)
