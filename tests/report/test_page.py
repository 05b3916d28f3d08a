import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from headless_chromium import Chromium
from report_builders import NOW, export, judged, registry

from percoin.report.board import make_board
from percoin.report.charts import equity_chart, nice_ticks, skill_picture, standalone
from percoin.report.page import to_html
from percoin.report.reading import read_models

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"' --></style>"
VOID = {"meta", "link", "input", "br", "img"}
# What reaches beyond the right edge and cannot be scrolled to within a box of its own.
BEYOND = """[...document.querySelectorAll('body *')].filter((each) =>
    each.getBoundingClientRect().right > innerWidth + 1 && !each.parentElement.closest('.scroll')
).map((each) => `${each.tagName} ${each.className} ${each.textContent.slice(0, 40)}`)"""


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return make_board(read_models(registry(tmp_path_factory.mktemp("models"))), NOW)


@pytest.fixture(scope="module")
def page(board):
    return to_html(board)


def board_of(root):
    return make_board(read_models(root), NOW)


class Outline(HTMLParser):
    """Counts the tags and checks that each is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.counts, self.open, self.ids, self.links = {}, [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.ids += [known["id"]] if "id" in known else []
        self.links += [known["href"]] if tag == "a" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_every_link_leads_somewhere(page):
    outline = Outline(page)

    assert len(outline.ids) == len(set(outline.ids))
    assert {link[1:] for link in outline.links} <= set(outline.ids)
    assert len(outline.links) == 7


def test_the_leaderboard_has_one_line_for_every_model(page):
    board = re.search(r'<table id="board">.*?</table>', page, re.S).group()

    assert board.count("<tr data-status=") == 7
    assert board.count('<tr data-status="broken"') == 2


def test_curves_that_end_at_the_same_height_both_keep_their_names():
    evaluation = judged()
    model, hold = evaluation.money
    level = replace(evaluation, money=(model, replace(hold, equity=model.equity)))
    chart = equity_chart(level, "2025-01-01", "2025-01-31")
    assert chart.count(">model<") == chart.count(">buy and hold<") == 1


def test_every_judged_model_has_its_pictures_and_tables(page):
    sections = re.findall(
        r'<details class="card model".*?(?=<details class="card model"|$)', page, re.S
    )

    assert len(sections) == 7
    judged_ones = [section for section in sections if "Against the baselines" in section]
    assert len(judged_ones) == 4
    for section in judged_ones:
        assert section.count('<svg class="chart"') == 2
        for text in ("What came, what it said", "Money", "train_prior", "majority", "sha256"):
            assert text in section


def test_the_page_asks_no_host_for_anything(page):
    assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", page) == []
    assert not re.search(r"@import|url\(|<(?:iframe|object|embed|base|form)\b", page)
    assert re.findall(r'\b(?:src|srcset|action|data)="[^"]*"', page) == []
    assert "default-src 'none'" in page


def test_accuracy_is_never_shown_without_the_majoritys(page):
    for sentence in re.findall(r"<li>It was right on [^<]*</li>", page):
        assert re.search(r"right on [\d.]+% of the test bars; saying \w+ every time, on", sentence)
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        if re.search(r">accuracy<", table):
            assert ">majority<" in re.sub(r"\s", "", table)


def test_hostile_text_in_a_manifest_and_in_an_evaluation_stays_text(tmp_path):
    evaluation = judged(n_rows=300)
    evaluation = replace(
        evaluation,
        model=replace(evaluation.model, name=HOSTILE),
        money=(replace(evaluation.money[0], name=HOSTILE), evaluation.money[1]),
        verdict=replace(evaluation.verdict, reasons=(HOSTILE,), cautions=(HOSTILE,)),
    )
    export(tmp_path, evaluation=evaluation, config={HOSTILE: HOSTILE}, code_version=HOSTILE)

    page = to_html(board_of(tmp_path))

    Outline(page)
    assert page.count("<script") == 1
    assert "<img" not in page
    assert "&lt;script&gt;alert" in page


def test_what_is_missing_leaves_the_page_whole(tmp_path):
    evaluation = judged(n_rows=300)
    line = evaluation.model
    never = replace(line.direction, auc=None, log_loss_skill=None, n_asked=0)
    bare = replace(evaluation, money=(), model=replace(line, direction=never, activity=never))
    export(tmp_path, "BTCUSDT", evaluation=bare)
    export(tmp_path, "ETHUSDT", evaluation=judged(n_rows=20))

    page = to_html(board_of(tmp_path))

    Outline(page)
    assert page.count("<b>Equity after costs.</b>") == 1
    assert "so this cannot be measured" in page
    assert "[too few rows]" in page


def test_a_page_of_one_model_shows_it_at_once(tmp_path):
    export(tmp_path, evaluation=judged(n_rows=300))

    assert '<details class="card model" id="BTCUSDT-15m" open>' in to_html(board_of(tmp_path))


def test_a_registry_of_broken_models_alone_gives_a_page(tmp_path):
    (export(tmp_path) / "meta.json").write_text("")

    page = to_html(board_of(tmp_path))

    Outline(page)
    assert "BTCUSDT 15m: broken." in page


def test_every_picture_is_well_formed(page, board):
    pictures = re.findall(r"<svg.*?</svg>", page, re.S)

    assert len(pictures) > 4 * 2
    for picture in pictures:
        ElementTree.fromstring(picture)
    root = ElementTree.fromstring(standalone(skill_picture(board.entries)))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_picture_of_the_skills_has_both_for_every_judged_model(board):
    picture = skill_picture(board.entries)

    assert picture.count("<title>") == 2 * 4
    assert picture.count('<g class="accepted">') == 2 * 2
    assert picture.count('<g class="untestable">') == 2


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (-0.031, 0.07, [-0.02, 0, 0.02, 0.04, 0.06]),
        (-0.98, 14.2, [0, 5, 10]),
    ],
)
def test_ticks_are_round_and_within(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_a_browser_opens_the_page_without_a_complaint(tmp_path, page):
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    with Chromium(tmp_path / "profile") as browser:
        browser.open((tmp_path / "index.html").as_uri())

        assert browser.run("document.querySelectorAll('tr[data-status]').length") == 7
        assert browser.run("document.documentElement.className") == "js"
        assert browser.complaints == []


def test_on_a_telephone_the_skill_stands_beside_the_market(tmp_path, page):
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    with Chromium(tmp_path / "profile") as browser:
        browser.show_as(390, 844, mobile=True)
        browser.open((tmp_path / "index.html").as_uri())
        opened = "for (const each of document.querySelectorAll('details')) each.open = true"
        browser.run(opened)
        beyond = browser.run(BEYOND)
        ends = browser.run(
            "[...document.querySelectorAll('#board tbody .skill, #board tbody .under .chip')]"
            ".map((each) => each.getBoundingClientRect().right)"
        )
        width = browser.run("document.documentElement.scrollWidth")

    assert width == 390
    assert beyond == []
    assert len(ends) == 2 * 7
    assert max(ends) <= 390


def test_no_escape_stands_for_a_line_break(page):
    assert "2025-01-25<br>to 2025-01-31" in page
    assert "\\n" not in page


def test_a_browser_would_complain_of_another_script(tmp_path, page):
    changed = page.replace("</body>", "<script>document.title = 'other'</script></body>")
    (tmp_path / "index.html").write_text(changed, encoding="utf-8")
    with Chromium(tmp_path / "profile") as browser:
        browser.open((tmp_path / "index.html").as_uri())

        assert browser.run("document.title").startswith("percoin report: ")
        assert any("Content Security Policy" in line for line in browser.complaints)
