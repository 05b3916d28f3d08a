from dataclasses import replace

import numpy as np
import pytest
from made_up_predictions import RULE, bars_of, prediction_on, soon_after, walk

from percoin.bars.panel import with_panel
from percoin.labels import OwnRule, Relative, TripleBarrier, VolatilityScaled
from percoin.monitoring.record import TrackRecord, kind_of_bars, sqlite_url
from percoin.monitoring.resolution import is_before_outcome, make_entry, resolve, rule_text
from percoin.plugins import PluginSource
from percoin.types import Signal, Source, Timeframe


@pytest.fixture
def record(tmp_path):
    return TrackRecord(sqlite_url(tmp_path / "record.sqlite"))


def write_on(record, bars, n_bars, rule=RULE, **span):
    seen = bars.slice(0, n_bars)
    return record.write(make_entry(prediction_on(seen), seen, rule, soon_after(seen, **span)))


def test_outcomes_by_hand(record):
    # Three bars later: +1 %, 0, -1 %, +0.25 % exactly (no trade), and one that is not over.
    close = [100.0, 100.0, 100.0, 101.0, 100.0, 99.0, 101.2525, 100.0]
    bars = bars_of(close)
    for n_bars in (1, 2, 3, 4, 6):
        assert write_on(record, bars, n_bars)
    assert resolve(record, bars, soon_after(bars)) == 4
    kept = record.predictions()
    assert [k.label for k in kept] == [Signal.LONG, Signal.NO_TRADE, Signal.SHORT, 1, None]
    returns = [k.forward_return for k in kept[:4]]
    assert returns == pytest.approx([0.01, 0.0, -0.01, 0.0025])
    assert kept[0].resolved_at == round(soon_after(bars).timestamp() * 1000)
    assert resolve(record, bars, soon_after(bars)) == 0


@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        VolatilityScaled(horizon=3, no_trade_share=0.4, volatility_bars=10, width=0.5),
        TripleBarrier(horizon=5, barrier_width=1.0, volatility_bars=10),
    ],
)
def test_whatever_the_rule_the_outcome_is_the_label_of_training(record, rule):
    bars = bars_of(walk(120))
    for n_bars in range(30, 120):
        write_on(record, bars, n_bars, rule)
    # Bar by bar, as they come, and from a window that is held.
    for n_bars in range(40, 121):
        resolve(record, bars.slice(max(0, n_bars - 40), n_bars), soon_after(bars))
    labels = rule.label(bars)
    settled = [kept for kept in record.predictions() if kept.label is not None]
    assert len(settled) == 120 - rule.horizon - 29
    rows = np.array([round(k.ts / 900_000) for k in settled]) - bars.open_time[0] // 900_000 - 1
    assert [k.label for k in settled] == labels.label[rows].tolist()
    assert [k.forward_return for k in settled] == labels.forward_return[rows].tolist()


def test_predictions_on_other_prices_stay_open_and_one_whose_bar_changed_is_void(record, caplog):
    """All folders of files are one kind of bars; these may be of another exchange."""
    bars = bars_of(walk(40), origin="files: spot/BTCUSDT/15m.parquet")
    for n_bars in (20, 21):
        write_on(record, bars, n_bars)
    perp = replace(bars, frame=bars.frame * 1.0002, origin="files: perp/BTCUSDT/15m.parquet")
    assert resolve(record, perp, soon_after(bars)) == 0
    assert "BTCUSDT 15m: 2 predictions stay open: they were made on other prices" in caplog.text
    # Where one close is the same, but for its format, these are the bars, and one has changed.
    mixed = perp.frame.copy()
    mixed.iloc[19] = bars.frame.iloc[19] * (1 + 1e-9)
    assert resolve(record, replace(perp, frame=mixed), soon_after(bars)) == 2
    settled, changed = record.predictions()
    assert (settled.void, changed.label) == ("", None)
    assert changed.void == "its bar has another close now than it had then"


def test_a_gap_makes_void_what_training_does_not_label(record):
    bars = bars_of(walk(40))
    write_on(record, bars, 20)
    write_on(record, bars, 30)
    holed = bars_of(walk(40))
    holed = type(bars)(bars.symbol, bars.timeframe, bars.frame.drop(bars.frame.index[21]), "x")
    assert resolve(record, holed, soon_after(bars)) == 0  # bars of another source
    holed = type(bars)(bars.symbol, bars.timeframe, holed.frame, bars.origin)
    assert resolve(record, holed, soon_after(bars)) == 2
    void, settled = record.predictions()
    assert (void.label, void.forward_return) == (None, None)
    assert "gap" in void.void
    assert settled.label is not None


def test_what_lies_before_the_bars_that_are_held_stays_open(record):
    bars = bars_of(walk(60))
    write_on(record, bars, 20)
    rule = TripleBarrier(horizon=5, barrier_width=1.0, volatility_bars=10)
    write_on(record, bars, 20, rule)
    assert resolve(record, bars.slice(20), soon_after(bars)) == 0
    # Its bars are here, but not all that its volatility is measured on.
    assert resolve(record, bars.slice(12), soon_after(bars)) == 1
    assert resolve(record, bars, soon_after(bars)) == 1


@pytest.mark.parametrize(
    ("rule", "live_bars"),
    [(RULE, 3), (TripleBarrier(horizon=5, barrier_width=1.0, volatility_bars=10), 1)],
)
def test_what_is_written_after_its_outcome_is_not_live(rule, live_bars):
    bars = bars_of(walk(40))
    for late_by, is_live in ((0.99, True), (1.0, False), (1000, False)):
        now = soon_after(bars, minutes=15 * live_bars * late_by)
        assert make_entry(prediction_on(bars), bars, rule, now).is_live is is_live


def test_nobody_knows_when_a_rule_of_the_users_own_is_settled():
    own = OwnRule(horizon=5, source=PluginSource("my_labels", "Mine", "0" * 64))
    step = Timeframe.M15.milliseconds
    assert is_before_outcome(own, 0, Timeframe.M15, step - 1)
    assert not is_before_outcome(own, 0, Timeframe.M15, step)


def test_without_a_rule_it_is_written_and_never_live(record):
    bars = bars_of(walk(40))
    assert write_on(record, bars, 20, rule=None)
    assert resolve(record, bars, soon_after(bars)) == 0
    assert record.predictions()[0].is_live is False


def test_baselines_are_those_of_the_moment(record):
    bars = bars_of(walk(300))
    seen = bars.slice(0, 250)
    entry = make_entry(prediction_on(seen), seen, RULE, soon_after(seen))
    labels = RULE.label(bars).label
    counts = np.bincount(labels[:247], minlength=3) + 1
    assert entry.baselines["prior"].probabilities == pytest.approx(counts / counts.sum())
    assert entry.baselines["persistence"].signal == labels[246]
    names = {"prior", "rolling_prior", "persistence", "rsi_ma", "momentum"}
    assert set(entry.baselines) == names
    # Fewer bars than it looks back over: all that have settled.
    assert entry.baselines["rolling_prior"].probabilities == pytest.approx(counts / counts.sum())
    for line in entry.baselines.values():
        assert sum(line.probabilities) == pytest.approx(1)


def test_the_rolling_prior_is_that_of_the_last_days():
    bars = bars_of(walk(1000))
    entry = make_entry(prediction_on(bars), bars, RULE, soon_after(bars), (0.6, 0.1, 0.3))
    labels = RULE.label(bars).label
    counts = np.bincount(labels[997 - 672 : 997], minlength=3) + 1
    assert entry.baselines["rolling_prior"].probabilities == pytest.approx(counts / counts.sum())


def test_the_prior_of_a_model_is_that_of_its_train_rows():
    seen = bars_of(walk(250))
    shares = (0.6, 0.1, 0.3)
    own = make_entry(prediction_on(seen), seen, RULE, soon_after(seen), shares).baselines
    others = make_entry(prediction_on(seen), seen, RULE, soon_after(seen)).baselines
    assert (own["prior"].signal, own["prior"].probabilities) == (0, shares)
    assert own["prior"] != others["prior"]
    assert own["momentum"] == others["momentum"]


def test_a_source_has_no_model(record):
    bars = bars_of(walk(40))
    prediction = prediction_on(bars, source=Source.RSI_MA)
    entry = make_entry(prediction, bars, RULE, soon_after(bars))
    assert (entry.model_version, entry.version_id, entry.probabilities) == ("", "", None)


def test_simulated_markets_are_kept_apart():
    assert kind_of_bars("binance spot: BTCUSDT") == "binance spot"
    assert kind_of_bars("files: klines/BTCUSDT/15m.parquet") == "files"
    assert kind_of_bars("simulated: seed=0 n=5") != kind_of_bars("simulated: seed=1 n=5")


# --- labels that compare markets

NAMES = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
RELATIVE = Relative(3, 0.4, 10, 0.5, 0.5, NAMES)
EACH = {name: bars_of(walk(120, k), "binance spot", name) for k, name in enumerate(NAMES)}


def test_relative_outcomes_are_the_labels_of_training(record):
    bars = EACH["BTCUSDT"]
    for n_bars in range(30, 120):
        seen = bars.slice(0, n_bars)
        made = make_entry(
            prediction_on(seen), seen, RELATIVE, soon_after(seen), None, lambda name: EACH[name]
        )
        assert record.write(made)
    for n_bars in range(40, 121):
        held = {name: each.slice(max(0, n_bars - 40), n_bars) for name, each in EACH.items()}
        resolve(record, held["BTCUSDT"], soon_after(bars), held.__getitem__)
    labels = RELATIVE.label(with_panel(bars, EACH.values()))
    settled = [kept for kept in record.predictions() if kept.label is not None]
    assert len(settled) == 120 - 3 - 29
    rows = np.array([round(k.ts / 900_000) for k in settled]) - bars.open_time[0] // 900_000 - 1
    assert [k.label for k in settled] == labels.label[rows].tolist()
    assert [k.forward_return for k in settled] == labels.forward_return[rows].tolist()
    known = labels.label[: 60 - 3]
    expected = np.bincount(known[known >= 0], minlength=3) + 1
    [then] = [k for k in record.predictions() if k.ts == bars.open_time[60]]
    assert then.baselines["prior"].probabilities == pytest.approx(expected / expected.sum())
    assert {*then.baselines} == {"prior", "rolling_prior", "persistence", "rsi_ma", "momentum"}


def test_a_relative_prediction_stays_open_until_every_market_is_there(record, caplog):
    bars = EACH["BTCUSDT"]
    shares = (0.3, 0.4, 0.3)
    for n_bars in (60, 80):
        seen = bars.slice(0, n_bars)
        entry = make_entry(prediction_on(seen), seen, RELATIVE, soon_after(seen), shares)
        assert entry.baselines["prior"].probabilities == pytest.approx(shares)
        assert record.write(entry)
    assert resolve(record, bars, soon_after(bars)) == 0
    assert "BTCUSDT 15m: predictions of labels=relative stay open" in caplog.text
    # One is behind: only what it reaches is decided, and by all of them.
    behind = EACH | {"SOLUSDT": EACH["SOLUSDT"].slice(0, 63)}
    assert resolve(record, bars, soon_after(bars), behind.__getitem__) == 1
    # Its bars begin too late for sigma of the mean.
    late = EACH | {"SOLUSDT": EACH["SOLUSDT"].slice(75)}
    assert resolve(record, bars, soon_after(bars), late.__getitem__) == 0
    assert resolve(record, bars, soon_after(bars), EACH.__getitem__) == 1
    labels = RELATIVE.label(with_panel(bars, EACH.values())).label
    assert [kept.label for kept in record.predictions()] == [labels[59], labels[79]]


def test_a_rule_with_many_markets_is_kept_whole(record):
    rule = Relative(3, 0.4, 10, 0.5, 0.5, tuple(f"COIN{k}USDT" for k in range(100)))
    bars = EACH["BTCUSDT"]
    entry = make_entry(prediction_on(bars), bars, rule, soon_after(bars), (0.3, 0.4, 0.3))
    assert len(entry.label_rule) > 1000
    assert [record.write(entry), record.write(entry)] == [True, False]
    [kept] = record.predictions()
    assert kept.label_rule == entry.label_rule == rule_text(rule)
    assert record.write(replace(entry, label_rule=rule_text(rule.among(NAMES))))
