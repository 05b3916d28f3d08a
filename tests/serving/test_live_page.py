"""The page in a real browser, served by a real process that is killed and comes again."""

import gzip
import json
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from builders import write_parquet
from exported_models import bars_to_learn_from, export, make_dataset, random_network
from headless_chromium import Chromium
from small_servers import Market, RunningServer, ask, exchange_bars, make_server

from percoin.features.drift import bin_features
from percoin.registry.judged import TRAIN_ROWS, TrainRows
from percoin.registry.manifest import StoredVerdict
from percoin.serving.page import page_files
from percoin.types import Signal

ROOT = Path(__file__).parents[2]
SYMBOLS = (ROOT / "symbols").read_text().strip().split(",")
BARS = bars_to_learn_from(700)
KEY = "a-secret-of-the-tests"
HOSTILE = "<img src=x onerror=alert(1)>"
ESTIMATE = {"value": 0.0123, "lower": -0.0045, "upper": 0.0291, "n_rows": 400}
EVALUATION = {
    "model": {"skill": ESTIMATE},
    "best_baseline": "logistic",
    "baselines": [{"name": "logistic", "skill": ESTIMATE | {"value": 0.01}}],
    "against_best": ESTIMATE | {"value": 0.0023},
    "bootstrap": {"confidence": 0.95},
}
SHARE = {"value": 0.25, "lower": 0.2, "upper": 0.3}
LEVELS = {"n_signals": 700} | dict.fromkeys(("stop_loss", "tp1", "tp2", "tp3"), SHARE)
ROWS = "document.querySelectorAll('#board tbody tr')"


def row(symbol: str) -> str:
    return f"document.querySelector('#board tr[data-symbol={symbol}]')"


def first_symbols(browser, n: int = 3) -> list[str]:
    return browser.run(f"[...{ROWS}].slice(0, {n}).map((row) => row.dataset.symbol)")


def serve_model(folder: Path, signal: Signal) -> None:
    export(
        folder / "models",
        random_network(signal),
        make_dataset(BARS),
        StoredVerdict.ACCEPTED,
        sections={"evaluation": EVALUATION, "judging": {"threshold": 0.4375}, "levels": LEVELS},
    )


def start(folder: Path, *arguments: str, **environment: str) -> RunningServer:
    served = ("source=files", "source.path=klines", f"symbol={','.join(SYMBOLS)}", "tf=15m,1h")
    return RunningServer(folder, *served, *arguments, **environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for symbol in SYMBOLS[:-1]:
        write_parquet(BARS, folder / "klines" / symbol / "15m.parquet")
    serve_model(folder, Signal.LONG)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def server(folder):
    with start(folder) as server:
        server.wait_until_started()
        yield server


@pytest.fixture
def page(server, browser):
    browser.requests.clear()
    browser.complaints.clear()
    browser.show_as(1440, 1000)
    browser.open("about:blank")
    browser.open(f"{server.url}/")
    browser.wait_for(f"{ROWS}.length === 32 && {row('BTCUSDT')}.innerText.includes('LONG')")
    yield browser
    assert browser.complaints == []
    asked = {address for address in browser.requests if not address.startswith("about:")}
    assert [address for address in asked if not address.startswith(f"{server.url}/")] == []


def test_it_shows_32_markets_with_all_that_is_asked_for(page):
    shown = page.run(f"{row('BTCUSDT')}.innerText")
    for words in (
        "LONG",
        "ML_PER_COIN_V1",
        "skill shown",
        "+0.0123",
        "[\u22120.0045, +0.0291]",
        "stale",
    ):
        assert words in shown
    widths = [
        page.run(f"{row('BTCUSDT')}.querySelector('.shares .{name}').offsetWidth")
        for name in ("SHORT", "NO_TRADE", "LONG")
    ]
    assert widths[2] > 80
    without = page.run(f"{row(SYMBOLS[-1])}.innerText")
    assert "no bars" in without
    assert "FALLBACK_NEUTRAL" in without
    assert "no answer" in without
    # Nobody answered: that is no confidence of 0 %.
    cells = page.run(f"[...{row(SYMBOLS[-1])}.cells].map((cell) => cell.innerText)")
    assert cells[2:5] == ["nothing", "\u2013", "\u2013"]
    assert "0 %" not in without


def test_what_is_old_says_so_first(page, server):
    newest = server.get("/api/predictions/BTCUSDT?tf=15m").json()["ts"][:16].replace("T", " ")
    status = page.run("document.getElementById('status').innerText")
    assert re.fullmatch(r"old bars, asked \d+\u00a0s ago", status)
    notice = page.run("document.getElementById('notice').innerText")
    assert re.match(rf"All bars are old: the newest closed at {newest} UTC, \d+\u00a0d ago", notice)
    assert "simulated" not in notice


def test_records_without_a_score_take_one_line_until_they_are_opened(page):
    # The file's bars ended long ago, so that every answer came too late to be scored.
    page.wait_for("/ 3\\d given too late/.test(document.getElementById('record').innerText)")
    record = page.run("document.getElementById('record').innerText")
    assert "Nothing can be scored yet" in record
    assert re.search(
        r"records have too few outcomes for a score: 0 known, 0 still open, 3\d", record
    )
    assert "XRPUSDT" not in record
    page.run("document.querySelector('.unscored summary').click()")
    record = page.run("document.getElementById('record').innerText")
    assert re.search(r"XRPUSDT\tFALLBACK_NEUTRAL\t.\t0\t0\t1\t", record)


def test_it_sorts_by_click_and_by_key_and_keeps_that_in_its_address(page):
    assert first_symbols(page) == sorted(SYMBOLS)[:3]
    head = "document.querySelector('#board [data-column=symbol]')"
    page.run(f"{head}.querySelector('button').click()")
    assert first_symbols(page) == sorted(SYMBOLS)[::-1][:3]
    assert page.run(f"{head}.getAttribute('aria-sort')") == "descending"
    page.run("document.querySelector('#board [data-column=confidence] button').focus()")
    page.press("Enter")
    page.wait_for("location.hash.includes('sort=-confidence')")
    shown = page.run(f"[...{ROWS}].map((row) => row.querySelector('.confidence').innerText)")
    shares = [float(each.removesuffix(" %")) for each in shown if each != "\u2013"]
    # Only a model has a probability; a rule's score stands in a column of its own.
    assert len(shares) == 1
    assert shown[0] == f"{shares[0]:.0f} %"
    page.run("document.querySelector('#board [data-column=score] button').click()")
    shown = page.run(f"[...{ROWS}].map((row) => row.cells[4].innerText)")
    scores = [float(each) for each in shown if each != "\u2013"]
    assert scores == sorted(scores, reverse=True)
    assert shown[: len(scores)] == [f"{score:.2f}" for score in scores]
    page.run("document.querySelector('#board [data-column=confidence] button').focus()")
    assert page.run("document.activeElement.closest('th').dataset.column") == "confidence"


def test_it_shows_only_what_is_looked_for(page):
    page.run("document.querySelector('.tile[data-signal=LONG]').click()")
    n_long = page.run("Number(document.querySelector('.tile[data-signal=LONG] b').innerText)")
    assert page.run(f"{ROWS}.length") == n_long
    page.run("document.querySelector('.tile[data-signal=LONG]').click()")
    typed = "filter.value = '{}'; filter.dispatchEvent(new Event('input'))"
    page.run(typed.format("eth"))
    assert first_symbols(page) == ["ETHUSDT"]
    page.run(typed.format(HOSTILE))
    assert page.run("document.getElementById('nothing').hidden") is False


def test_a_market_opens_with_candles_skill_and_who_was_asked(page):
    page.run(f"{row('BTCUSDT')}.querySelector('button').click()")
    page.wait_for("document.querySelector('#market[open] .chart .wick') !== null")
    shown = page.run("document.getElementById('market').innerText")
    for words in ("Last 200 bars", "logistic", "95 % intervals", "ML_PER_COIN_V1 answered", "1h"):
        assert words in shown
    assert re.search(r"LONG\t.\tnot known yet\t.\tML_PER_COIN_V1\tlate", shown)
    assert "market=BTCUSDT" in page.run("location.hash")
    page.press("Escape")
    page.wait_for("!document.getElementById('market').open && !location.hash.includes('market')")


def test_a_direction_says_what_was_judged_of_it(page, server):
    page.run(f"{row('BTCUSDT')}.querySelector('button').click()")
    page.wait_for("document.querySelector('#levels') !== null")
    answer = server.get("/api/predictions/BTCUSDT?tf=15m").json()
    told = page.run(
        "[...document.querySelectorAll('#market .facts > div')].map((fact) => fact.innerText)"
    )
    facts = dict(each.split("\n", 1) for each in told)
    ends = answer["valid_until"][:16].replace("T", " ")
    assert facts["Valid until (UTC)"] == f"{ends}\n3 bars"
    sure = f"{answer['confidence']:.3f}"
    assert facts["Would be traded"] == f"yes\nconfidence {sure}, judged threshold 0.438"
    assert facts["Stop"].endswith("\n25.0 % [20.0, 30.0]")
    assert facts["Target 3"].endswith("\n25.0 % [20.0, 30.0]")
    note = page.run("document.querySelector('.reached').innerText")
    assert "within 3 bars when 700 such signals were judged" in note

    # The lines on the candles say their prices too.
    lines = page.run(
        "[...document.querySelectorAll('#market .level-text')].map((text) => text.textContent)"
    )
    assert f"stop {facts['Stop'].partition(chr(10))[0]}" in lines
    # All that the picture of skills shows is measured as its axis says.
    picture = page.run("document.querySelector('#skill .chart').textContent")
    assert "share of the log-loss removed" in picture
    assert "nats" not in picture


def test_an_opened_market_says_first_what_to_do_with_its_answer(page):
    page.run(f"{row('BTCUSDT')}.querySelector('button').click()")
    page.wait_for("document.querySelector('#market[open] #advice') !== null")
    told = page.run("document.getElementById('advice').innerText")
    assert told.startswith("What to do with this\n\nToo old: newer bars must have closed")
    assert re.search(
        r"expects the price to rise by more than 0\.25.% over the next 3 bars, with a prob", told
    )
    assert re.search(
        r"It was valid until \d{4}-\d\d-\d\d \d\d:\d\d UTC: that was \d+.d ago\.", told
    )
    assert "Its model's test: skill shown; over 400 test rows" in told
    assert page.run("document.getElementById('market-body').firstChild.id") == "advice"


ANSWER = {
    "ts": "2025-06-30T12:00:00+00:00",
    "valid_until": "2025-06-30T12:45:00+00:00",
    "pred": "LONG",
    "confidence": 0.58,
    "probabilities": {"SHORT": 0.2, "NO_TRADE": 0.22, "LONG": 0.58},
    "source": "ML_PER_COIN_V1",
    "verdict": "accepted",
    "threshold": 0.5,
    "would_trade": True,
    "stale": False,
}
RULED = {"probabilities": None, "source": "PRO", "threshold": None, "would_trade": None}


@pytest.mark.parametrize(
    ("changes", "age_secs", "short"),
    [
        ({}, 60, "would be traded"),
        ({"threshold": 0.6, "would_trade": False}, 60, "would not be traded"),
        ({"threshold": 1, "would_trade": False}, 60, "would not be traded"),
        ({"threshold": None, "would_trade": None}, 60, "skill shown"),
        ({"verdict": "rejected"}, 60, "do not use"),
        ({"verdict": "untestable"}, 60, "do not use"),
        ({"pred": "NO_TRADE"}, 60, "stay out"),
        ({}, 2700, "too old"),
        # A bar has closed since, but the answer was for three of them.
        ({"stale": True}, 1000, "would be traded"),
        ({"valid_until": None, "stale": True}, 1000, "too old"),
        (RULED | {"verdict": "better_than_coin"}, 60, "weak hint"),
        (RULED | {"verdict": "not_told_from_coin"}, 60, "do not use"),
        (RULED | {"verdict": "unjudged"}, 60, "do not use"),
        ({"source": "FALLBACK_NEUTRAL", "pred": "NO_TRADE"}, 60, "nothing"),
        ({"ts": None, "valid_until": None}, None, "nothing"),
    ],
)
def test_what_to_do_follows_from_the_answer_alone(page, changes, age_secs, short):
    answer = json.dumps(ANSWER | changes)
    assert page.run(f"advice.of({answer}, {json.dumps(age_secs)}).short") == short


@pytest.mark.parametrize(
    ("price", "shown"),
    [(0.00001234, "0.00001234"), (0.8107, "0.8107"), (0, "0.00"), (108410.6, "108,410.60")],
)
def test_prices_are_shown_down_to_the_tick_of_the_cheapest_coins(page, price, shown):
    assert page.run(f"charts.price({price})") == shown


def test_another_length_of_bars_is_a_click_away(page):
    page.run("document.querySelector('[data-tf=\"1h\"]').click()")
    page.wait_for(f"{row('BTCUSDT')}.dataset.said.includes('\"1h\"')")
    assert "tf=1h" in page.run("location.hash")


@pytest.mark.parametrize(("scheme", "page_colour"), [("light", 251), ("dark", 20)])
def test_it_has_the_colours_that_the_system_prefers(page, scheme, page_colour):
    page.show_as(1400, 1000, scheme)
    shown = page.run("getComputedStyle(document.documentElement).backgroundColor")
    assert int(re.findall(r"\d+", shown)[0]) == page_colour


# What reaches beyond the right edge and cannot be scrolled to within a box of its own.
BEYOND = """[...document.querySelectorAll('body *')].filter((each) =>
    each.getBoundingClientRect().right > innerWidth + 1 && each.getClientRects().length
    && !each.closest('.hidden') && !each.parentElement.closest('.scroll:not(:has(#board))')
).map((each) => `${each.tagName} ${each.className} ${each.textContent.slice(0, 40)}`)"""


def test_it_fits_a_telephone(page):
    page.show_as(390, 844, mobile=True)
    assert page.run("innerWidth") == 390
    page.wait_for("document.querySelector('.unscored') !== null")
    page.run("document.querySelector('.unscored').open = true")
    page.run("document.querySelector('.legend').open = true")
    assert page.run(BEYOND) == []
    assert page.run("document.getElementById('board').getBoundingClientRect().width") <= 390
    # What cannot be seen in a column of its own stands below the market.
    under = page.run(f"{row('BTCUSDT')}.querySelector('.under').innerText")
    assert under == "too old \u00b7 model \u00b7 skill shown"
    assert re.fullmatch(r"\d+\u00a0d\nstale", page.run(f"{row('BTCUSDT')}.lastChild.innerText"))

    page.run(f"{row('BTCUSDT')}.querySelector('button').click()")
    page.wait_for("document.querySelector('#market[open] .chart .wick') !== null")
    dialog = "document.getElementById('market')"
    assert page.run(f"{dialog}.scrollWidth") <= page.run(f"{dialog}.clientWidth") <= 390
    assert page.run(BEYOND) == []


def test_everything_that_can_be_pressed_has_a_name_and_can_be_reached_by_key(page):
    page.run(f"{row('BTCUSDT')}.querySelector('button').click()")
    page.wait_for("document.querySelector('#market[open] .chart .wick') !== null")
    nameless = page.run(
        "[...document.querySelectorAll('button, input, select, summary, svg[role=img], .scroll')]"
        ".filter((each) => !(each.getAttribute('aria-label') || each.textContent.trim()"
        " || each.labels?.length)).map((each) => each.outerHTML.slice(0, 80))"
    )
    assert nameless == []
    unreached = page.run(
        "[...document.querySelectorAll('#board tbody tr, .scroll')].filter((each) =>"
        " each.tabIndex < 0 && !each.querySelector('button')).length"
    )
    assert unreached == 0
    assert page.run("document.getElementById('market').contains(document.activeElement)")


def test_simulated_markets_say_that_they_are(tmp_path, browser):
    served = ("source=simulated", "symbol=BTCUSDT", "tf=15m", "chain=[momentum,hold]")
    with RunningServer(tmp_path, *served) as server:
        server.wait_until_started()
        browser.show_as(1440, 1000)
        browser.open(f"{server.url}/#market=BTCUSDT")
        browser.wait_for("document.querySelector('#market[open] #advice') !== null")
        notice = browser.run("document.getElementById('notice').innerText")
        shown = browser.run(f"{row('BTCUSDT')}.cells[0].innerText")
        head = browser.run("document.getElementById('market-name').innerText")
        told = browser.run("document.getElementById('advice').innerText")
    assert notice.startswith("These markets are simulated: percoin made their bars up")
    assert "simulated" in shown
    assert "simulated" in head
    assert "These bars are simulated" in told


@pytest.mark.slow
def test_it_changes_with_an_answer_and_lives_through_a_killed_server(page, server, folder):
    serve_model(folder, Signal.SHORT)
    page.wait_for(f"{row('BTCUSDT')}.innerText.includes('SHORT')")
    assert page.run(f"{row('BTCUSDT')}.classList.contains('changed')")

    server.stop(signal.SIGKILL)
    page.wait_for("document.documentElement.classList.contains('is-down')")
    banner = page.run("document.getElementById('banner').innerText")
    assert re.match(r"Server unreachable since \d\d:\d\d:\d\d\.", banner)
    assert page.run(f"{ROWS}.length") == 32

    with start(folder, f"port={server.port}") as another:
        another.wait_until_started()
        page.wait_for("document.getElementById('banner').hidden", 30)
        assert page.run("document.getElementById('status').innerText").startswith("old bars")


def test_the_record_tells_which_feature_of_a_model_has_drifted(tmp_path, browser):
    bars = bars_to_learn_from(1300)
    write_parquet(bars, tmp_path / "klines" / "BTCUSDT" / "15m.parquet")
    dataset = make_dataset(bars.slice(0, 700))
    bins = bin_features(dataset.feature_names, dataset.features[dataset.rows("train")])
    bins = {name: replace(each, furthest=0.1) for name, each in bins.items()}
    told = TrainRows((0.3, 0.4, 0.3), bins)
    export(tmp_path / "models", random_network(), dataset, sections={TRAIN_ROWS: told})
    with RunningServer(
        tmp_path, "source=files", "source.path=klines", "symbol=BTCUSDT", "tf=15m"
    ) as server:
        server.wait_until_started()
        [drift] = server.get("/api/scoreboard").json()["drift"]
        browser.show_as(1440, 1000)
        browser.open(f"{server.url}/")
        browser.wait_for("document.querySelector('#scoreboard tbody tr') !== null")
        browser.run("document.querySelector('.unscored').open = true")
        shown = browser.run("document.getElementById('record').innerText")
    ratio = drift["shifts"][drift["worst"]]["ratio"]
    assert ratio > 1
    assert f"{drift['worst']} {ratio:.1f}\u00d7" in shown


def test_while_the_record_cannot_be_read_the_signals_go_on(folder, browser, tmp_path):
    away = tmp_path / "away"
    away.write_text("a file where the folder of the record belongs")
    url = f"record_url=sqlite:///{away / 'record.sqlite'}"
    with start(folder, url) as server:
        server.wait_until_started()
        assert server.get("/api/scoreboard").status == 503
        browser.show_as(1440, 1000)
        browser.open(f"{server.url}/")
        # Of whichever model is served by now.
        browser.wait_for(f"/LONG|SHORT/.test({row('BTCUSDT')}?.innerText)")
        assert browser.run("document.getElementById('banner').hidden")
        shown = browser.run("document.getElementById('scoreboard').innerText")
        assert shown == "The track record cannot be read now. The answers above are still updated."
        browser.open(f"{server.url}/#market=BTCUSDT")
        market = "document.getElementById('market-body').innerText"
        browser.wait_for(f"{market}.includes('The track record cannot be read now.')")


def test_a_locked_server_is_opened_with_its_key(folder, browser):
    with start(folder, PERCOIN_API_KEY=KEY) as locked:
        browser.show_as(1440, 1000)
        browser.open(f"{locked.url}/")
        browser.wait_for("!document.getElementById('key-form').hidden")
        assert browser.run("document.getElementById('content').hidden")
        typed = "key.value = '{}'; document.querySelector('#key-form button').click()"
        browser.run(typed.format("wrong"))
        browser.wait_for("!document.getElementById('key-problem').hidden")
        browser.run(typed.format(KEY))
        browser.wait_for(f"{ROWS}.length === 32")
        assert browser.run("document.getElementById('key-form').hidden")
        assert KEY not in browser.run("location.href")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    market = Market(exchange_bars(30), n_closed=20)
    return make_server(tmp_path_factory.mktemp("models"), market, api_key=KEY)


def test_the_document_names_files_that_may_be_kept_for_good(plain):
    document = ask(plain, "/")
    assert document.headers["cache-control"] == "no-cache"
    names = re.findall(r'(?:src|href)="([^"#]+)"', document.text)
    assert len(names) == 6
    assert "{{" not in document.text
    for name in names:
        file = ask(plain, name, {"Accept-Encoding": "gzip"})
        assert file.headers["content-encoding"] == "gzip"
        assert "immutable" in file.headers["cache-control"]
        assert file.content == page_files()[name].plain
        assert ask(plain, name, {"Accept-Encoding": "identity"}).content == file.content


def test_no_script_of_another_and_none_in_the_document_may_run(plain):
    policy = ask(plain, "/").headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert not re.search(r"<script(?! src)|<style|\son\w+=|\sstyle=", ask(plain, "/").text)


def test_the_page_says_nothing_of_any_market_without_the_key(plain):
    for file in page_files().values():
        assert gzip.decompress(file.packed) == file.plain
        assert b"BTCUSDT" not in file.plain


COLOURS = re.findall(
    r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)",
    next(file.plain for name, file in page_files().items() if name.endswith(".css")).decode(),
)


@pytest.mark.parametrize("text", ["ink", "soft", "blue", "orange", "grey", "amber", "red"])
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_can_be_read(text, scheme):
    """A contrast of 4.5 with what is behind it, as WCAG 2.2 asks for at level AA."""
    colours = {name: both[scheme] for name, *both in COLOURS}
    for behind in ("page", "card"):
        bright, dark = sorted((luminance(colours[name]) for name in (text, behind)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, behind


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", ["page.js", "../app.py", "%2e%2e/app.py", "page-000000000000.js"])
def test_there_are_no_other_files(plain, name):
    assert ask(plain, f"/page/{name}", {"X-API-Key": KEY}).status_code == 404
