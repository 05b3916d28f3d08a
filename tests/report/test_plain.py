import json
import re
from dataclasses import replace

import pytest
from report_builders import NOW, export, judged, registry

from percoin.registry.manifest import Gate, StoredVerdict
from percoin.report.board import make_board
from percoin.report.files import write_report
from percoin.report.plain import COLUMNS, to_json, to_markdown, to_text
from percoin.report.reading import read_models


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return make_board(read_models(registry(tmp_path_factory.mktemp("models"))), NOW)


def refuse(text):
    raise ValueError(text)


def cells(line):
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_the_terminal_shows_the_leaderboard_and_the_answer(board):
    lines = to_text(board).splitlines()

    assert lines[0].split()[:3] == ["market", "verdict", "skill"]
    assert [line.split()[0] for line in lines[1:3]] == [
        entry.model.symbol for entry in board.entries[:2]
    ]
    assert lines[-4] == "2 of 7 models have shown skill."
    assert lines[-3].startswith("4 models were tried.")
    assert lines[-2].startswith("15m: the 2 models' mean skill is")
    assert lines[-1].startswith("Surely ahead of its rival, by the same control: 2 of 4")


def test_one_model_is_explained_in_the_terminal(tmp_path):
    export(tmp_path, evaluation=judged(constant=True, n_rows=300))

    text = to_text(make_board(read_models(tmp_path), NOW))

    assert "collapsed (constant): gives" in text


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path):
    evaluation = judged(n_rows=300)
    verdict = replace(evaluation.verdict, reasons=("\x1b]0;gone\x07", "\x9b2J"))
    export(tmp_path, evaluation=replace(evaluation, verdict=verdict))

    text = to_text(make_board(read_models(tmp_path), NOW))

    assert all(character.isprintable() for character in text.replace("\n", ""))


HOSTILE = "calm\n# forged\x1b[2J\x1b]0;owned\x07\u202e"


def test_no_control_character_of_a_file_reaches_any_form_of_the_report(tmp_path):
    evaluation = judged(n_rows=300)
    evaluation = replace(
        evaluation,
        model=replace(evaluation.model, name=HOSTILE),
        money=(replace(evaluation.money[0], name=HOSTILE), evaluation.money[1]),
        verdict=replace(evaluation.verdict, reasons=(HOSTILE,), cautions=(HOSTILE,)),
    )
    export(
        tmp_path,
        evaluation=evaluation,
        config={HOSTILE: HOSTILE},
        code_version=HOSTILE,
        libraries={HOSTILE: HOSTILE},
        label_rule={"kind": HOSTILE, HOSTILE: HOSTILE},
        gate=Gate(StoredVerdict.REJECTED, (HOSTILE,)),
    )
    write_report(make_board(read_models(tmp_path), NOW), tmp_path / "report")
    for path in (tmp_path / "report").iterdir():
        lines = path.read_text(encoding="utf-8").split("\n")
        assert not [line for line in lines if not line.isprintable()], path.name
        assert not [line for line in lines if line.startswith("# forged")], path.name


def test_every_table_of_the_markdown_is_one(board):
    tables = re.findall(r"(?:^\|.*\n)+", to_markdown(board), re.M)

    assert len(tables) == 1 + 3 * 4
    for table in tables:
        widths = {len(cells(line)) for line in table.splitlines()}
        assert len(widths) == 1
        assert set(cells(table.splitlines()[1])) <= {" --- ", " ---: "}
    assert len(tables[0].splitlines()) == 2 + 7
    assert len(cells(tables[0].splitlines()[0])) == len(COLUMNS)


def test_the_markdown_has_a_section_with_dates_and_hashes_for_every_model(board):
    markdown = to_markdown(board)

    assert re.findall(r"^## (\w+ \w+): ([\w ]+)$", markdown, re.M)[0] == (
        "BTCUSDT 15m",
        "skill shown",
    )
    assert markdown.count("\n## ") == 7
    assert markdown.count("tested on: open 2025-01-25 06:00 to 2025-01-31 23:00") == 5
    assert markdown.count("sha256 of bars: " + "ab" * 32) == 5


def test_text_of_a_file_cannot_break_out_of_its_cell(tmp_path):
    evaluation = judged(n_rows=300)
    hostile = "a|b\n\n# head <b> [x](y) `c`"
    verdict = replace(evaluation.verdict, reasons=(hostile,))
    line = replace(evaluation.model, name=hostile)
    export(tmp_path, evaluation=replace(evaluation, verdict=verdict, model=line))

    markdown = to_markdown(make_board(read_models(tmp_path), NOW))

    assert "\n# head" not in markdown
    assert r"a\|b \# head \<b\> \[x\](y) \`c\`" in markdown


def test_the_json_is_strict_and_says_what_the_board_says(board):
    document = json.loads(to_json(board), parse_constant=refuse)

    assert document["created_at"] == "2030-01-01T12:30:00Z"
    assert document["counts"]["accepted"] == 2
    assert document["false_discovery"]["n_tried"] == 4
    assert [m["symbol"] for m in document["models"]] == [e.model.symbol for e in board.entries]
    first, last = document["models"][0], document["models"][-1]
    value = board.entries[0].model.evaluation.model.skill.value
    assert first["evaluation"]["model"]["skill"]["value"] == value
    assert first["bars"]["splits"]["test"]["rows"] == 200
    assert "equity" not in first["evaluation"]["money"][0]
    assert (last["status"], last["evaluation"], last["bars"]) == ("broken", None, None)
    assert last["reasons"]
