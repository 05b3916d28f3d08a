"""The page over a track record that is full, and over a server that is slow to answer."""

from collections import Counter
from datetime import datetime
from itertools import pairwise

import pytest
from filled_record import MODELLED, RULED, fill_record
from headless_chromium import Chromium
from small_servers import RunningServer

# The record of 300 bars is made first, and that takes long.
pytestmark = pytest.mark.slow

SHOWN = 200
WORDS = {
    "right": "came true",
    "wrong": "did not come true",
    "open": "not known yet",
    "void": "no outcome",
}
RECORD = "[...document.querySelectorAll('#scoreboard tbody tr')]"
MARKS = "[...document.querySelectorAll('#market[open] .chart .mark')]"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled")
    fill_record(folder)
    served = (f"symbol={MODELLED},{RULED}", "tf=15m,1h", "chain=[ml,momentum,hold]")
    with RunningServer(folder, "source=files", "source.path=klines", *served) as server:
        server.wait_until_started()
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(filled, browser):
    for noted in (browser.requests, browser.given_up, browser.held, browser.complaints):
        noted.clear()
    browser.show_as(1440, 1000)
    browser.open("about:blank")
    browser.open(f"{filled.url}/#tf=15m")
    browser.wait_for(f"{RECORD}.length > 0")
    # The board comes by a question of its own.
    for symbol in (MODELLED, RULED):
        browser.wait_for(
            f"document.querySelector('#board tr[data-symbol={symbol}] button') !== null"
        )
    yield browser
    browser.let_go()
    assert browser.complaints == []


def open_market(page, symbol: str) -> None:
    page.run(f"document.querySelector('#board tr[data-symbol={symbol}] button').click()")
    page.wait_for(f"document.getElementById('market-name').innerText.startsWith('{symbol}')")
    page.wait_for("document.querySelector('#market[open] .chart .wick') !== null")


def outcome(said: dict) -> str:
    if said["void"]:
        return "void"
    if said["label"] is None:
        return "open"
    return "right" if said["label"] == said["pred"] else "wrong"


def history(server, symbol: str) -> list[dict]:
    address = f"/api/history/{symbol}?tf=15m&limit={SHOWN}"
    return server.get(address).json()["predictions"]


def number(value: float) -> str:
    return f"{value:+.4f}".replace("-", "\u2212")


def test_the_scoreboard_says_what_the_record_says(page, filled):
    standings = filled.get("/api/scoreboard?tf=15m").json()["standings"]
    (model,) = [each for each in standings if each["source"] == "ML_PER_COIN_V1"]
    assert model["n_resolved"] > 100
    assert model["n_void"] > 0
    page.run("document.querySelector('.unscored').open = true")
    told = page.run(f"{RECORD}.map((row) => [...row.cells].map((cell) => cell.innerText))")
    assert len(told) == len(standings)
    # What has a score comes first.
    in_order = sorted(standings, key=lambda each: not (each["skill"] or each["hit_rate"]))
    for row, standing in zip(told, in_order, strict=True):
        n_open = standing["n_written"] - standing["n_resolved"] - standing["n_void"]
        assert row[:2] == [standing["symbol"], standing["source"]]
        counts = [str(standing["n_resolved"]), str(n_open), str(standing["n_late"])]
        assert row[3:6] == counts
    (row,) = [row for row in told if row[1] == "ML_PER_COIN_V1"]
    assert row[2] == f"{model['version_id'][:13]}\u2026"
    skill, rate = model["skill"], model["hit_rate"]
    ends = f"[{number(skill['lower'])}, {number(skill['upper'])}]"
    assert row[6] == f"{number(skill['value'])}\n{ends}"
    known = {name: each["skill"] for name, each in model["baselines"].items() if each["skill"]}
    best = max(known, key=lambda name: known[name]["value"])
    assert row[7].startswith(f"{best.replace('_', ' ')} {number(known[best]['value'])}\n[")
    shares = [f"{100 * rate[name]:.0f}\u00a0%" for name in ("value", "lower", "upper")]
    assert row[8].replace(" ", "\u00a0") == f"{shares[0]}\n[{shares[1]},\u00a0{shares[2]}]"
    move = model["move"]
    assert move["n_rows"] > 100
    shares = " \u00b7 ".join(f"{100 * share['value']:.0f}" for share in move["coverage"].values())
    assert row[9] == f"{shares} %\nQLIKE {move['qlike']['value']:.3f}"
    (source,) = [row for row in told if row[:2] == [RULED, "FALLBACK_NEUTRAL"]]
    assert (source[6], source[8]) == ("\u2013", "too few")
    # All of it can be seen without scrolling to the side.
    assert page.run("document.querySelector('#scoreboard .scroll').scrollWidth") <= page.run(
        "document.querySelector('#scoreboard .scroll').clientWidth"
    )


def test_a_cone_of_three_bands_begins_at_the_newest_close(page, filled):
    answer = filled.get(f"/api/predictions/{MODELLED}?tf=15m").json()
    open_market(page, MODELLED)
    cone = "document.querySelector('#market .chart .cone')"
    ends = page.run(
        f"[...{cone}.querySelectorAll('path')].map((path) => path.getBBox()).map("
        "(box) => [box.x, box.y, box.x + box.width, box.y + box.height])"
    )
    assert len(ends) == len(answer["bands"]) == 3
    for inner, outer in pairwise(ends):
        assert (outer[0], outer[2]) == (inner[0], inner[2])
        assert outer[1] < inner[1] < inner[3] < outer[3]
    last = page.run("document.querySelector('#market .chart .wick').getBBox().width")
    assert ends[0][0] == pytest.approx(last, abs=12)
    assert "95 %" in page.run(f"{cone}.querySelector('title').textContent")
    facts = page.run("document.querySelector('#market .facts').innerText")
    assert f"\u00b1\u202f{answer['expected_move']:.2f} %" in facts
    # A market without a model has no cone, and its candles take all the width.
    page.run("document.getElementById('close').click()")
    open_market(page, RULED)
    assert page.run(f"{cone} === null")


@pytest.mark.parametrize("symbol", [MODELLED, RULED])
def test_past_signals_lie_on_their_candles_with_what_became_of_them(page, filled, symbol):
    opened = filled.get(f"/api/bars/{symbol}?tf=15m&limit={SHOWN}").json()["open_time"]
    places = {time + 900_000: place for place, time in enumerate(opened)}
    said = {
        places[moment(each["ts"])]: each
        for each in history(filled, symbol)
        if moment(each["ts"]) in places
    }
    marked = {place: each for place, each in said.items() if each["pred"] != "NO_TRADE"}
    expected = Counter(
        (f"mark {each['pred']} {outcome(each)}", f"{each['pred']}: {WORDS[outcome(each)]}")
        for each in marked.values()
    )
    assert len({kind for kind, _ in expected}) >= 2
    open_market(page, symbol)
    drawn = page.run(
        f"{MARKS}.map((mark) => [mark.getAttribute('class'), mark.textContent].join('|'))"
    )
    assert Counter(tuple(each.split("|")) for each in drawn) == expected

    # Pointing at the bar of a mark reads it.
    place, each = list(marked.items())[-1]
    page.run(
        "(() => { const chart = document.querySelector('#market .chart');"
        f"const box = {MARKS}.at(-1).getBoundingClientRect();"
        "chart.dispatchEvent(new PointerEvent('pointermove',"
        " { clientX: box.left + box.width / 2, clientY: box.top })); })()"
    )
    reading = page.run("document.querySelector('#market .reading').innerText")
    assert reading.endswith(f", said {each['pred']} ({WORDS[outcome(each)]})")
    assert moment(reading[:16].replace(" ", "T") + "+00:00") == opened[place]


def moment(text: str) -> int:
    """Milliseconds since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def test_the_last_answers_are_listed_with_their_outcomes_and_drawn_as_curves(page, filled):
    open_market(page, MODELLED)
    rows = page.run(
        "[...document.querySelectorAll('#market .past tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    newest = history(filled, MODELLED)[::-1][:20]
    assert [row[3] for row in rows] == [WORDS[outcome(each)] for each in newest]
    assert {row[3] for row in rows} >= {"not known yet", "came true", "did not come true"}
    assert [row[1] for row in rows] == [each["pred"].replace("_", " ") for each in newest]
    returned = [f"{100 * each['forward_return']:+.2f} %" for each in newest if each["label"]]
    assert [row[4].replace("\u2212", "-") for row in rows if row[4] != "\u2013"] == returned
    n_points = page.run(
        "document.querySelector('#probabilities .curve.LONG').getAttribute('d')"
        ".match(/[ML]/g).length"
    )
    assert n_points == sum(each["probabilities"] is not None for each in history(filled, MODELLED))


def test_a_question_about_the_board_is_given_up_for_a_newer_one(page, filled):
    page.hold("*/api/predictions?tf=15m")
    page.wait_until(lambda: page.held)
    page.run("document.querySelector('[data-tf=\"1h\"]').click()")
    page.wait_until(lambda: f"{filled.url}/api/predictions?tf=15m" in page.given_up)
    page.wait_for("document.querySelector('#board tbody tr').dataset.said.includes('\"1h\"')")
    page.let_go()
    page.wait_until(lambda: page.requests.count(f"{filled.url}/api/predictions?tf=1h") >= 3)
    assert page.run("document.querySelector('#board tbody tr').dataset.said.includes('\"1h\"')")
    assert page.run("document.getElementById('banner').hidden")


def test_a_question_about_a_market_is_given_up_for_the_next_market(page, filled):
    page.hold(f"*/api/bars/{MODELLED}?*")
    page.run(f"document.querySelector('#board tr[data-symbol={MODELLED}] button').click()")
    page.wait_until(lambda: page.held)
    asked = f"{filled.url}/api/bars/{MODELLED}?tf=15m&limit={SHOWN}"
    assert page.held[-1] == asked
    page.press("Escape")
    # At once, without waiting until the browser tells that it has closed.
    open_market(page, RULED)
    assert asked in page.given_up
    page.let_go()
    page.run("0")
    assert page.run("document.getElementById('market-name').innerText").startswith(RULED)
    assert page.run("location.hash").endswith(f"market={RULED}")


def test_a_market_that_is_opened_while_another_one_closes_stays(page):
    open_market(page, MODELLED)
    # The browser tells that the first was closed only after the second has been opened.
    page.run(
        "document.getElementById('market').close();"
        f"document.querySelector('#board tr[data-symbol={RULED}] button').click()"
    )
    page.wait_for("document.querySelector('#market[open] .chart .wick') !== null")
    assert page.run("location.hash").endswith(f"market={RULED}")


def test_nothing_is_given_up_where_nothing_newer_is_asked(page, filled):
    polled = f"{filled.url}/api/predictions?tf=15m"
    page.wait_until(lambda: page.requests.count(polled) >= 3)
    assert page.given_up == []
