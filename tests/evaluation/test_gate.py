from dataclasses import replace

import numpy as np
import pytest

from percoin.evaluation.collapse import Collapse, CollapseKind
from percoin.evaluation.gate import (
    GateRules,
    Outcome,
    Search,
    Verdict,
    apply_false_discovery_control,
    control_false_discoveries,
    judge,
)
from percoin.evaluation.uncertainty import Estimate

SKILL = Estimate(
    value=0.02,
    lower=0.01,
    upper=0.03,
    standard_error=0.005,
    p_value=0.001,
    smallest_detectable=0.014,
    n_rows=4500,
    n_effective_rows=2000,
    block_length=20,
)
EVEN = replace(SKILL, value=0.0, lower=-0.002, upper=0.002)


def test_skill_that_is_surely_positive_and_no_worse_than_a_baseline_is_accepted():
    verdict = judge(SKILL, EVEN, "logistic", None)
    assert verdict.outcome is Outcome.ACCEPTED
    assert verdict.is_accepted
    assert verdict.p_value == 0.001
    assert "+0.0200 [+0.0100, +0.0300]" in verdict.reasons[0]
    assert "logistic" in verdict.reasons[1]


def test_a_collapsed_model_is_rejected_by_name_whatever_it_scores():
    collapse = Collapse(CollapseKind.CONSTANT, "gives 0.1/0.8/0.1 on every row")
    verdict = judge(SKILL, EVEN, "logistic", collapse)
    assert verdict.outcome is Outcome.REJECTED
    assert verdict.reasons[0].startswith("collapsed (constant)")


def test_on_too_few_rows_only_a_constant_is_one():
    few = replace(SKILL, lower=None, upper=None, p_value=None)
    outcomes = [
        judge(few, EVEN, "logistic", Collapse(kind, "as good as a constant")).outcome
        for kind in (CollapseKind.CONSTANT, CollapseKind.NEAR_CONSTANT, CollapseKind.ONE_ANSWER)
    ]
    assert outcomes == [Outcome.REJECTED, Outcome.UNTESTABLE, Outcome.UNTESTABLE]


def test_behind_the_rival_beyond_noise_is_rejected():
    worse = replace(EVEN, value=-0.01, lower=-0.015, upper=-0.005)
    verdict = judge(SKILL, worse, "boosting", None)
    assert verdict.outcome is Outcome.REJECTED
    assert verdict.reasons[0].startswith("behind boosting: boosting minus model -0.0100")


def test_level_with_the_rival_and_ahead_of_it_are_told_apart():
    ahead = replace(EVEN, value=0.01, lower=0.005, upper=0.015)
    assert judge(SKILL, EVEN, "volatility", None).reasons[-1].startswith("level with volatility")
    assert judge(SKILL, ahead, "volatility", None).reasons[-1].startswith("ahead of volatility")


def test_both_rulers_have_to_show_skill_and_the_weaker_evidence_counts():
    weaker = replace(SKILL, value=0.01, lower=0.002, upper=0.018, p_value=0.004)
    verdict = judge(SKILL, EVEN, "logistic", None, recent_skill=weaker)
    assert verdict.outcome is Outcome.ACCEPTED
    assert verdict.p_value == 0.004
    assert verdict.reasons[1].startswith("skill over the rolling prior +0.0100")
    none = replace(SKILL, value=0.002, lower=-0.004, upper=0.008, p_value=0.3)
    verdict = judge(SKILL, EVEN, "logistic", None, recent_skill=none)
    assert verdict.outcome is Outcome.REJECTED
    assert verdict.reasons[0].startswith("no skill shown: skill over the rolling prior +0.0020")
    below = replace(SKILL, value=-0.02, lower=-0.03, upper=-0.01, p_value=1.0)
    verdict = judge(SKILL, EVEN, "logistic", None, recent_skill=below)
    assert verdict.reasons[0].startswith("worse than the rolling prior")


def test_worse_than_the_prior_is_rejected():
    verdict = judge(replace(SKILL, value=-0.02, lower=-0.03, upper=-0.01), EVEN, "logistic", None)
    assert verdict.outcome is Outcome.REJECTED
    assert "worse than the train prior" in verdict.reasons[0]


def test_skill_whose_interval_ends_at_nothing_is_not_shown():
    touching = replace(SKILL, lower=0.0)
    assert judge(touching, EVEN, "logistic", None).outcome is Outcome.REJECTED
    assert judge(replace(SKILL, lower=1e-9), EVEN, "logistic", None).is_accepted


def test_an_interval_that_ends_at_nothing_is_not_worse_than_the_prior():
    verdict = judge(replace(SKILL, value=-0.01, lower=-0.02, upper=0.0), EVEN, "logistic", None)
    assert "no skill shown" in verdict.reasons[0]


def test_a_lead_whose_interval_ends_at_nothing_is_not_surely_worse():
    even = replace(EVEN, value=-0.001, lower=-0.002, upper=0.0)
    assert judge(SKILL, even, "logistic", None).is_accepted
    assert not judge(SKILL, replace(even, upper=-1e-9), "logistic", None).is_accepted


def test_no_skill_where_it_would_have_been_seen_is_rejected():
    verdict = judge(replace(SKILL, value=0.0, lower=-0.01, upper=0.01), EVEN, "logistic", None)
    assert verdict.outcome is Outcome.REJECTED
    assert "no skill shown" in verdict.reasons[0]


def test_no_skill_where_none_could_be_seen_is_untestable():
    wide = replace(SKILL, value=0.01, lower=-0.1, upper=0.12, smallest_detectable=0.15)
    verdict = judge(wide, EVEN, "logistic", None)
    assert verdict.outcome is Outcome.UNTESTABLE
    assert "0.150" in verdict.reasons[0]


def test_few_rows_prove_nothing_even_with_a_good_interval():
    verdict = judge(replace(SKILL, n_rows=60, n_effective_rows=20), EVEN, "logistic", None)
    assert verdict.outcome is Outcome.UNTESTABLE
    assert "60 test rows count as 20 independent ones" in verdict.reasons[0]


def test_rows_too_few_for_any_interval_are_untestable():
    bare = Estimate(0.05, None, None, None, None, None, 20, 6.0, 3)
    verdict = judge(bare, bare, "logistic", None)
    assert verdict.outcome is Outcome.UNTESTABLE
    assert verdict.p_value is None
    assert "too few test rows for an interval: 20, which make 6.7 blocks" in verdict.reasons[0]


def test_too_good_to_be_true_earns_a_caution():
    miracle = replace(SKILL, value=0.5, lower=0.48, upper=0.52)
    verdict = judge(miracle, miracle, "logistic", None, cautions=["decides LONG on 99.0%"])
    assert len(verdict.cautions) == 3
    assert all("leak until proved otherwise" in caution for caution in verdict.cautions[1:])
    assert judge(SKILL, EVEN, "logistic", None).cautions == ()


@pytest.mark.parametrize("lower", [None, -0.02])
def test_a_large_lead_that_is_not_sure_is_luck_and_no_leak(lower):
    lead = replace(SKILL, value=0.05, lower=lower, upper=None if lower is None else 0.12)
    assert judge(SKILL, lead, "logistic", None).cautions == ()
    sure = replace(SKILL, value=0.05, lower=0.01, upper=0.09)
    (caution,) = judge(SKILL, sure, "logistic", None).cautions
    assert caution.startswith("0.050 nats a row ahead of its rival, more than 0.03: a leak")


def test_a_large_skill_of_a_few_rows_is_luck_and_no_leak():
    few = replace(SKILL, value=0.3, lower=None, upper=None, p_value=None, n_rows=5)
    assert judge(few, EVEN, "logistic", None).cautions == ()


def test_a_lead_without_skill_is_no_leak_but_a_bad_rival():
    behind_the_prior = replace(SKILL, value=-0.1, lower=-0.2, upper=0.05)
    lead = replace(SKILL, value=0.05, lower=0.01, upper=0.09)
    assert judge(behind_the_prior, lead, "persistence", None).cautions == ()


def test_trials_on_validation_rows_cost_nothing_on_test_rows_but_are_named():
    verdict = judge(SKILL, EVEN, "logistic", None, search=Search(n_trials=200))
    assert verdict.outcome is Outcome.ACCEPTED
    assert verdict.p_value == SKILL.p_value
    (caution,) = verdict.cautions
    assert caution.startswith("chosen from 200 trials on validation")


def test_every_look_at_the_same_test_rows_is_paid_for():
    verdicts = [judge(SKILL, EVEN, "logistic", None, search=Search(n_looks=n)) for n in (25, 26)]
    assert [verdict.outcome for verdict in verdicts] == [Outcome.ACCEPTED, Outcome.REJECTED]
    assert verdicts[1].p_value == pytest.approx(0.026)
    assert verdicts[1].reasons[0].startswith("no skill shown after 26 looks at the same test rows")
    assert "26 chosen models, this one included, were judged" in verdicts[1].cautions[0]
    assert judge(SKILL, EVEN, "logistic", None, search=Search(n_looks=5000)).p_value == 1.0


def test_looks_change_nothing_about_a_model_without_a_p_value():
    bare = Estimate(0.05, None, None, None, None, None, 20, 6.0, 3)
    verdict = judge(bare, bare, "logistic", None, search=Search(n_looks=3))
    assert verdict.outcome is Outcome.UNTESTABLE
    assert verdict.p_value is None


def test_rules_can_be_set():
    strict = GateRules(min_effective_rows=3000)
    assert judge(SKILL, EVEN, "logistic", None, strict).outcome is Outcome.UNTESTABLE


def test_benjamini_yekutieli_by_hand():
    # m = 4, c = 1 + 1/2 + 1/3 + 1/4 = 25/12; thresholds k * .05 / (4 c) = .006, .012, .018, .024
    p_values = {"a": 0.005, "b": 0.013, "c": 0.0175, "d": 0.5, "e": None}
    assert control_false_discoveries(p_values) == {
        "a": True,
        "b": True,
        "c": True,
        "d": False,
        "e": False,
    }
    assert not any(control_false_discoveries({"a": 0.03, "b": 0.5}).values())


def test_no_models_no_discoveries():
    assert control_false_discoveries({}) == {}
    assert control_false_discoveries({"a": None}) == {"a": False}


def test_a_sweep_without_edges_rarely_has_a_discovery():
    rng = np.random.default_rng(0)
    sweeps = [
        control_false_discoveries({str(k): p for k, p in enumerate(rng.random(128))})
        for _ in range(300)
    ]
    assert np.mean([any(stands.values()) for stands in sweeps]) <= 0.05


def test_an_accepted_model_may_fall_over_the_number_tried():
    verdicts = {
        f"market {k}": Verdict(Outcome.ACCEPTED if k == 0 else Outcome.REJECTED, ("why",), (), p)
        for k, p in enumerate([0.01, *np.linspace(0.1, 1, 99)])
    }
    after = apply_false_discovery_control(verdicts)
    fallen = after["market 0"]
    assert fallen.outcome is Outcome.REJECTED
    assert "100 models tried" in fallen.reasons[0]
    assert fallen.reasons[1:] == ("why",)
    assert after["market 5"] is verdicts["market 5"]


def test_a_strong_model_stands_among_many():
    verdicts = {
        f"market {k}": Verdict(Outcome.ACCEPTED if k == 0 else Outcome.REJECTED, ("why",), (), p)
        for k, p in enumerate([1e-5, *np.linspace(0.1, 1, 99)])
    }
    assert apply_false_discovery_control(verdicts)["market 0"].is_accepted


@pytest.mark.parametrize("p_value", [None, 0.9])
def test_the_control_leaves_other_verdicts_alone(p_value):
    verdict = Verdict(Outcome.UNTESTABLE, ("few rows",), (), p_value)
    assert apply_false_discovery_control({"a": verdict}) == {"a": verdict}
