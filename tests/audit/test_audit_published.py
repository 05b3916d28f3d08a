import json
import os

import pytest
from report.report_builders import judged

from percoin.audit.findings import Finding, FindingStatus, format_findings, summarise
from percoin.audit.published import audit_metrics_file, audit_scores
from percoin.errors import ConfigError

CONSTANT = {"accuracy": 0.9778, "precision": 0.9560, "recall": 0.9778, "f1": 0.9668}
HONEST = {"accuracy": 0.5123, "precision": 0.4871, "recall": 0.5123, "f1": 0.4702}


def write(path, metrics, **further):
    path.write_text(json.dumps({"symbol": "BTCUSDT", "test_metrics": metrics, **further}))
    return path


def test_the_four_scores_of_an_old_metrics_json_are_recognised(tmp_path):
    # As its system wrote it: scores, sizes and history, and no confusion matrix.
    old = write(
        tmp_path / "metrics.json",
        CONSTANT,
        dataset_info={"train_samples": 420, "val_samples": 90, "test_samples": 90},
        training_history={"train_loss": [1.0], "val_loss": [1.0]},
    )
    (finding,) = audit_metrics_file(old)
    assert finding.status is FindingStatus.CONSTANT
    assert finding.is_bad
    assert "97.78% of the rows have one label; 88 of 90 rows" in finding.evidence


@pytest.mark.parametrize("constant", [False, True])
def test_scores_of_a_constant_are_no_fault_of_probabilities_that_inform(tmp_path, constant):
    evaluation = judged(constant=constant, n_rows=300).to_json()
    matrix = [[0, 12, 0], [0, 60, 0], [0, 18, 0]]
    for scores in (CONSTANT, {**HONEST, "confusion_matrix": matrix}):
        path = write(tmp_path / "metrics.json", scores, evaluation=evaluation)
        (finding,) = audit_metrics_file(path)
        assert finding.status is (FindingStatus.CONSTANT if constant else FindingStatus.OK)
        assert ("; but the probabilities differ from row to row" in finding.evidence) != constant


@pytest.mark.parametrize("n_right", range(30, 90))
def test_every_constant_on_90_rows_is_recognised_with_all_its_digits(n_right):
    p = n_right / 90
    scores = {"accuracy": p, "precision": p * p, "recall": p, "f1": 2 * p * p / (1 + p)}
    assert audit_scores(scores, 90).status is FindingStatus.CONSTANT


@pytest.mark.parametrize("changed", list(CONSTANT))
def test_one_score_that_does_not_fit_is_no_constant(changed):
    assert audit_scores({**CONSTANT, changed: 0.95}, 90).status is FindingStatus.OK


def test_honest_scores_pass(tmp_path):
    (finding,) = audit_metrics_file(write(tmp_path / "metrics.json", HONEST))
    assert finding.status is FindingStatus.OK
    assert "accuracy 0.5123" in finding.evidence


def test_a_confusion_matrix_with_one_column_is_a_constant_whatever_the_scores_say():
    matrix = [[0, 12, 0], [0, 60, 0], [0, 18, 0]]
    finding = audit_scores({**HONEST, "confusion_matrix": matrix}, 90)
    assert finding.status is FindingStatus.CONSTANT
    assert finding.evidence.endswith("NO_TRADE")
    two_classes = audit_scores({**HONEST, "confusion_matrix": [[80, 0], [10, 0]]}, 90)
    assert two_classes.evidence.endswith("class 0")


@pytest.mark.parametrize("matrix", [None, "none", [], [[1, 2], [3]], [[0, 0], [0, 0]], [[5, 1]]])
def test_a_matrix_that_says_nothing_is_passed_over(matrix):
    assert audit_scores({**HONEST, "confusion_matrix": matrix}, None).status is FindingStatus.OK


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"test_metrics": 3}', '{"test_metrics": {"accuracy": 0.9, "f1": "high"}}'],
)
def test_a_file_without_the_scores_is_refused(tmp_path, content):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"metrics=.*metrics\.json (cannot be read|has no)"):
        audit_metrics_file(path)


HOSTILE = [1e999, -1e999, float("nan"), 10**400, True, "0.5", None, [0.5]]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:8])
def test_a_score_that_is_no_number_is_none(tmp_path, value):
    path = write(tmp_path / "metrics.json", {**HONEST, "f1": value})
    with pytest.raises(ConfigError, match="has no test_metrics with accuracy, "):
        audit_metrics_file(path)


@pytest.mark.parametrize("value", [*HOSTILE, -1, 0, 10**30], ids=lambda value: str(value)[:8])
def test_a_number_of_rows_that_cannot_be_meant_is_not_counted_with(tmp_path, value):
    path = write(tmp_path / "metrics.json", CONSTANT, dataset_info={"test_samples": value})
    (finding,) = audit_metrics_file(path)
    assert finding.evidence.endswith("97.78% of the rows have one label")


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: str(value)[:8])
def test_a_matrix_of_what_is_no_number_is_passed_over(value):
    matrix = [[0, value, 0], [0, 5, 0], [0, 5, 0]]
    status = audit_scores({**HONEST, "confusion_matrix": matrix}, 90).status
    # One that NumPy reads as a count is one.
    assert status is (FindingStatus.CONSTANT if value in (True, "0.5") else FindingStatus.OK)


def test_what_is_no_file_of_figures_is_refused_and_not_waited_for(tmp_path):
    pipe, deep, vast = (tmp_path / name for name in ("pipe", "deep.json", "vast.json"))
    os.mkfifo(pipe)
    deep.write_text("[" * 100_000)
    with vast.open("wb") as file:
        file.truncate(50 * 2**30)
    for path, words in (
        (pipe, "is no file"),
        (tmp_path, "is no file"),
        (deep, "is nested too deeply"),
        (vast, "53,687,091,200 bytes, too many for a file of scores"),
    ):
        with pytest.raises(ConfigError, match=words):
            audit_metrics_file(path)


def test_what_a_finding_quotes_moves_no_cursor_and_forges_no_line():
    finding = Finding("check", FindingStatus.OK, "fine\nLEAK  all  bad\x1b[2J\ud800" + "x" * 10_000)
    (line,) = format_findings([finding]).splitlines()
    assert line.isprintable()
    assert len(line) < 2100


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        audit_metrics_file(tmp_path / "metrics.json")


def test_findings_are_one_line_each_and_counted():
    findings = [
        Finding("short", FindingStatus.OK, "fine"),
        Finding("a longer check", FindingStatus.LEAK, "not fine"),
        Finding("another", FindingStatus.OK, "fine"),
    ]
    assert format_findings(findings).splitlines() == [
        "ok           short           fine",
        "LEAK         a longer check  not fine",
        "ok           another         fine",
    ]
    assert summarise(findings) == "2 ok, 1 LEAK"
