import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from registry.command.trained_registry import add_version, market, served
from retrain.retrain_runs import ACCEPTED, AT_ONCE, REJECTED, market_of, places, serve, tree

from percoin.bars.sources.simulated import SimulatedSource
from percoin.bars.store import BarStore
from percoin.cli import EXIT_USAGE, compose_config
from percoin.config import PredictConfig, TrainConfig, typed
from percoin.errors import ConfigError, SweepError
from percoin.predict import answer
from percoin.registry.catalogue import Version, check_market, served_version, version_ids
from percoin.registry.changes import promote
from percoin.registry.history import Action, read_history
from percoin.registry.manifest import BarsInfo, Gate, Manifest, StoredVerdict
from percoin.registry.revision import demote, withdraw_acceptance
from percoin.report.reading import read_model
from percoin.retrain.__main__ import main, raise_if_undone, read_task
from percoin.retrain.decisions import Absent, Cause, LiveSkill, Verb
from percoin.retrain.round import run_round
from percoin.retrain.states import Watched, count_after, look_at, n_looks
from percoin.retrain.table import to_json, to_text
from percoin.retrain.trainings import job_of
from percoin.types import Timeframe

NOW = datetime.now(UTC)
GONE = LiveSkill(-0.04, -0.05, -0.03, 5_000, 1_000.0, 180.0)


def gone(_manifest: Manifest) -> Watched:
    return Watched(Absent("not measured"), GONE)


def task(folder, *arguments: str, **changes):
    return replace(read_task([*places(folder), *arguments]), **changes)


def only(found):
    (outcome,) = found.outcomes
    return outcome


def predicted(folder, capsys) -> dict:
    arguments = ["symbol=BTCUSDT", "tf=1h", "source=store", "output=json", "predictor=torch"]
    folders = [place for place in places(folder) if not place.startswith("outputs")]
    answer(typed(compose_config("predict", [*arguments, *folders]), PredictConfig))
    return json.loads(capsys.readouterr().out)


def test_a_model_whose_live_skill_is_gone_is_demoted_and_the_chain_answers(trained, capsys):
    kept = serve(trained, ACCEPTED)
    assert predicted(trained, capsys)["source"] == "ML_PER_COIN_V1"
    found = run_round(task(trained, watch=gone), NOW)

    outcome = only(found)
    # It was trained a moment ago, and is not trained again before its time.
    assert [decision.verb for decision in outcome.decisions] == [Verb.DEMOTE, Verb.KEEP]
    assert outcome.result == f"{kept} demoted"
    assert outcome.decisions[1].reasons[0].cause is Cause.TRIED_LATELY
    said = predicted(trained, capsys)
    assert said["source"] == "FALLBACK_NEUTRAL"
    assert (said["passed"][0]["reason"], said["passed"][0]["detail"][:26]) == (
        "model_rejected",
        "its live skill is gone: li",
    )
    event = read_history(market(trained)).events[-1]
    assert (event.action, event.before, event.after) == (Action.WITHDRAW, kept, served(trained))
    assert "demote_error=0.05" in event.why
    assert not [check for check in check_market(market(trained)) if check.problem]
    assert "demote  its live skill is gone" in to_text(found)


def test_no_older_model_takes_the_place_of_a_demoted_one(trained):
    older, newer = serve(trained, ACCEPTED), serve(trained, ACCEPTED)
    run_round(task(trained, watch=gone), NOW)
    assert served(trained) not in {older, newer}


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_version_of_meanwhile_is_judged_by_its_own_record(trained, is_gone):
    older = serve(trained, ACCEPTED)
    newer = []

    def watch(manifest: Manifest) -> Watched:
        if not newer:
            # Another process publishes while the round looks at its markets.
            newer.append(serve(trained, ACCEPTED))
        unknown = Watched(Absent("not measured"), Absent("too few"))
        return gone(manifest) if is_gone or manifest.version_id == older else unknown

    outcome = only(run_round(task(trained, watch=watch), NOW))
    (newer,) = newer
    assert (served(trained) == newer) is not is_gone
    assert outcome.result == (f"{newer} demoted" if is_gone else "")
    assert outcome.decisions[0].verb is (Verb.DEMOTE if is_gone else Verb.KEEP)


def test_a_demotion_can_be_undone_and_then_stands(trained):
    kept = serve(trained, ACCEPTED)
    run_round(task(trained, watch=gone), NOW)
    promote(market(trained), kept, "I know better", force=True)
    outcome = only(run_round(task(trained, watch=gone), NOW))
    assert served(trained) == kept
    assert outcome.decisions[0].verb is Verb.KEEP


def test_a_round_that_ends_in_the_middle_of_a_demotion_is_finished_by_the_next(trained):
    kept = serve(trained, ACCEPTED)
    where = market(trained)
    run_round(task(trained, watch=gone), NOW)
    revised = served(trained)
    # As if killed between writing the revised version and showing it.
    where.link.unlink()
    where.link.symlink_to(where.link_target(kept))
    n_versions = len(version_ids(where))
    run_round(task(trained, watch=gone), NOW)
    assert served(trained) == revised
    assert len(version_ids(where)) == n_versions


def test_what_is_looked_at_is_not_changed(trained):
    serve(trained, ACCEPTED)
    before = tree(trained)
    found = run_round(task(trained, "dry_run=true", AT_ONCE, watch=gone), NOW)
    assert tree(trained) == before
    assert only(found).decisions[0].verb is Verb.DEMOTE
    assert to_text(found).splitlines()[-2:] == ["1 market: 1 demote", "dry run: nothing was done"]


def looked(folder, *arguments: str):
    return look_at(market(folder), task(folder, *arguments), NOW)


def test_a_market_is_read_as_it_is(trained):
    served_id = serve(trained, ACCEPTED)
    subject = looked(trained)
    state = subject.state
    assert subject.manifest.version_id == served_id
    assert subject.source[0] == "source=simulated"
    assert state.data_end == datetime(2025, 8, 29, 22, tzinfo=UTC)
    assert (state.n_bars, state.n_new_bars) == (1390, 50)
    assert abs(state.last_tried - datetime.now(UTC)) < timedelta(minutes=10)
    assert (state.obstacle, state.is_forced) == ("", False)


def test_bars_of_an_exchange_are_counted_by_the_clock(trained):
    serve(trained, ACCEPTED, choices={"source": "binance"}, source={"market": "spot"})
    subject = looked(trained)
    assert subject.source == ("source=binance", "source.market='spot'")
    assert subject.state.n_new_bars == (NOW - subject.state.data_end) // timedelta(hours=1)
    assert "learnt from simulated bars, and source=binance gives real" in subject.state.obstacle


def test_a_source_that_no_longer_exists_is_an_obstacle_and_no_failure(trained):
    serve(trained, ACCEPTED, choices={}, source={})
    state = looked(trained).state
    assert state.obstacle == "its manifest does not say where its bars came from; name a source"
    assert looked(trained, "source=store").state.obstacle == ""


HOSTS = {"archive_url": "https://data.binance.vision", "api_url": None}


@pytest.mark.parametrize(
    ("option", "settings", "words"),
    [
        ("files", {"path": "/etc"}, "its bars came from files; name them: source=files source.pa"),
        ("../../trap", {}, "its manifest does not say where its bars came from; name a source"),
        ("files.yaml/../sample", {}, "its manifest does not say where its bars came from"),
        (["store"], {}, "its manifest does not say where its bars came from; name a source"),
        (
            "binance",
            {"market": "../../trap"},
            "this percoin does not know its source (source.market=",
        ),
        (
            "binance",
            {"market": "'perp',source.api_url=http://evil"},
            "this percoin does not know its source",
        ),
        ("binance", {"market": {"_target_": "os.system"}}, "its manifest has source.market={'_tar"),
        (
            "binance",
            {"exchange": "${oc.env:HOME}"},
            "this percoin does not know its source (source.e",
        ),
        ("binance", {"api_url": "http://evil"}, "its manifest names a host, source.api_url='http:"),
        ("binance", {"archive_url": "http://evil"}, "its manifest names a host, source.archive_ur"),
        ("binance", {"exchange": "kraken"}, "its manifest names kraken, and the store has no bars"),
        ("simulated", {"edge": 10**30}, "this percoin does not know its source ("),
        ("simulated", {"seed": "${oc.env:HOME}"}, "this percoin does not know its source ("),
    ],
)
def test_a_manifest_chooses_no_file_no_host_and_no_option(trained, option, settings, words):
    serve(trained, ACCEPTED, choices={"source": option}, source={**HOSTS, **settings})
    subject = looked(trained)
    assert subject.state.obstacle.startswith(words)
    assert subject.source == ()
    outcome = only(run_round(task(trained, AT_ONCE), NOW))
    assert outcome.decisions[0].verb is Verb.KEEP
    assert outcome.decisions[0].reasons[0].cause is Cause.OBSTACLE
    # Whoever runs the command may name any.
    assert looked(trained, "source=store").state.obstacle == ""


def test_of_an_exchange_only_its_market_is_taken_over(trained):
    asked = {**HOSTS, "market": "perp", "parallel": 64, "attempts": 10**9, "timeout_secs": 1e300}
    serve(trained, ACCEPTED, choices={"source": "binance"}, source=asked)
    assert looked(trained).source == ("source=binance", "source.market='perp'")


def test_another_exchange_is_asked_if_the_stored_bars_came_from_there(trained):
    store = BarStore(trained / "data" / "bars")
    bars = store.load("BTCUSDT", Timeframe.H1)
    store.path("BTCUSDT", Timeframe.H1).unlink()
    store.write(replace(bars, origin="kraken spot: BTCUSDT"))
    asked = {**HOSTS, "market": "spot", "exchange": "kraken"}
    serve(trained, ACCEPTED, choices={"source": "binance"}, source=asked)
    assert looked(trained).source == (
        *("source=binance", "source.market='spot'"),
        "source.exchange='kraken'",
    )


def test_a_planted_label_rule_ends_in_one_line_and_not_in_a_training(trained):
    manifest = served_version(market(trained)).manifest
    rule = {**manifest.label_rule, "kind": "'../../trap'"}
    add_version(trained, gate=ACCEPTED, label_rule=rule)
    outcome = only(run_round(task(trained, AT_ONCE), NOW))
    assert outcome.failed
    assert "label rule \"'../../trap'\" is not known; known are" in outcome.result
    assert not (trained / "outputs" / "retrain").exists()


def test_a_planted_manifest_trains_its_own_market_and_no_other_one(trained):
    serve(trained, ACCEPTED, symbol="SOLUSDT", tf={"name": "15m"}, models_dir="/tmp/elsewhere")
    job = job_of(looked(trained), task(trained).settings)
    asked = typed(compose_config("train", job.overrides), TrainConfig)
    assert (asked.symbol, asked.tf.name) == ("BTCUSDT", "1h")
    assert (asked.models_dir, asked.data_dir) == (str(trained / "models"), str(trained / "data"))
    assert (job.symbol, job.tf) == ("BTCUSDT", "1h")


@pytest.mark.parametrize("markets", ["SOLUSDT,ETHUSDT", "BTCUSDT,SOLUSDT", ["BTCUSDT"], None])
def test_a_manifest_that_only_says_it_is_of_a_pool_brings_no_market_along(trained, markets):
    serve(trained, ACCEPTED, recipe="pooled", symbol=markets)
    outcome = only(run_round(task(trained, AT_ONCE), NOW))
    assert outcome.state.symbol == "BTCUSDT"
    assert outcome.decisions[0].verb is Verb.KEEP
    assert "name a pool, but it was not trained in one" in outcome.decisions[0].reasons[0].text


def test_models_that_failed_on_the_same_test_rows_make_the_next_gate_stricter(trained):
    assert looked(trained).n_looks == 2  # the training's own verdict
    serve(trained, REJECTED)
    assert looked(trained).n_looks == 3
    serve(trained, ACCEPTED)
    assert looked(trained).n_looks == 3


def test_a_model_that_lost_its_acceptance_counts_as_a_failed_one(trained):
    where = market(trained)
    for _ in range(2):
        kept = serve(trained, ACCEPTED)
        withdraw_acceptance(where.root, where.symbol, where.timeframe, kept, "tried among many")
        promote(where, kept, "the next one is made from it", force=True)
    assert looked(trained).n_looks == 4  # with the training's own verdict
    kept = serve(trained, ACCEPTED)
    assert looked(trained).n_looks == 4
    demote(where.root, where.symbol, where.timeframe, kept, "its live skill is gone")
    assert looked(trained).n_looks == 5
    # What says so stays when the accepted version is pruned.
    shutil.rmtree(where.versions / kept)
    assert looked(trained).n_looks == 5


def test_looks_that_somebody_has_named_are_carried_over_and_grow_with_failures(trained):
    serve(trained, REJECTED, looks=5)
    assert looked(trained).n_looks == 6
    # What a retraining then asks for is no person's word, and is not added to itself.
    serve(trained, ACCEPTED, looks=6)
    assert looked(trained).n_looks == 6
    serve(trained, REJECTED, looks=6)
    assert looked(trained).n_looks == 7


def test_looks_are_asked_for_as_they_were_named(trained):
    serve(trained, ACCEPTED, looks=5)
    subject = looked(trained)
    assert "looks=5" in job_of(subject, task(trained).settings).overrides


def test_looks_named_for_test_rows_that_have_passed_are_forgotten(trained):
    manifest = served_version(market(trained)).manifest
    named = replace(manifest, gate=ACCEPTED, config={**manifest.config, "looks": 5})

    def looks_after(**moved: float) -> int:
        newer = replace(named, bars=move(manifest.bars, timedelta(**moved)))
        return n_looks([Version("an older one", named), Version("a newer one", newer)])

    assert looks_after(hours=1) == 5
    assert looks_after(days=300) == 1


def test_a_walk_forward_is_judged_on_the_rows_of_all_its_folds(trained):
    manifest = served_version(market(trained)).manifest
    test = manifest.bars.splits["test"]
    newest_fold = {**manifest.bars.splits, "test": replace(test, first=test.last)}
    walked = {
        "gate": ACCEPTED,
        "bars": replace(manifest.bars, splits=newest_fold),
        "config": {**manifest.config, "evaluation": "walk_forward", "folds": 4},
    }
    for hours in (1, 2):
        add_version(trained, gate=REJECTED, bars=move(manifest.bars, timedelta(hours=-hours)))
    add_version(trained, **walked)
    assert looked(trained).n_looks == 4  # and the training's own verdict
    # Without the days of its test rows they are estimated: four fifths of all bars.
    failed = [replace(manifest, bars=move(manifest.bars, timedelta(days=-n))) for n in (9, 900)]
    versions = [*failed, replace(manifest, **walked)]
    assert n_looks([Version(str(n), found) for n, found in enumerate(versions)]) == 2


def move(bars: BarsInfo, span: timedelta) -> BarsInfo:
    def later(moment: str) -> str:
        return (datetime.fromisoformat(moment) + span).strftime("%Y-%m-%dT%H:%M:%SZ")

    splits = {
        name: replace(part, first=later(part.first), last=later(part.last))
        for name, part in bars.splits.items()
    }
    ends = {name: later(getattr(bars, name)) for name in ("first_open_time", "last_open_time")}
    return replace(bars, splits=splits, **ends)


def test_a_broken_model_is_due_and_its_recipe_is_that_of_an_older_one(trained):
    older = served(trained)
    newer = serve(trained, ACCEPTED)
    (market(trained).version(newer) / "meta.json").write_text("{}")
    subject = looked(trained, AT_ONCE)
    assert subject.state.condition == "invalid"
    assert subject.manifest.version_id == older


def test_one_market_that_cannot_be_done_stops_no_other(trained):
    serve(trained, ACCEPTED, lr="much")
    found = run_round(task(trained, AT_ONCE), NOW)
    outcome = only(found)
    assert outcome.failed
    assert "cannot be read by this percoin" in outcome.result
    assert to_json(found)["markets"][0]["failed"] is True
    with pytest.raises(SweepError, match="not done: BTCUSDT 1h; the table says why"):
        raise_if_undone(found)


def named(folder, symbol: str) -> None:
    """A market beside the trained one, of which nothing is known but its name."""
    market_of(folder, symbol).link.mkdir(parents=True)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("half a character \ud800 and \x1b[2J"),
        RecursionError("maximum recursion depth exceeded"),
        OverflowError("int too large to convert to float"),
        OSError(24, "Too many open files"),
    ],
)
def test_a_market_that_cannot_be_looked_at_is_named_and_stops_no_other(
    trained, monkeypatch, caplog, error
):
    serve(trained, ACCEPTED)
    for symbol in ("AAAUSDT", "ZZZUSDT"):
        named(trained, symbol)

    def look(where, *rest):
        if where.symbol != "BTCUSDT":
            raise error
        return look_at(where, *rest)

    monkeypatch.setattr("percoin.retrain.round.look_at", look)
    found = run_round(task(trained, "dry_run=true", AT_ONCE), NOW)
    by_symbol = {outcome.state.symbol: outcome for outcome in found.outcomes}
    assert by_symbol["BTCUSDT"].decisions[0].verb is Verb.TRAIN
    assert not by_symbol["BTCUSDT"].failed
    for symbol in ("AAAUSDT", "ZZZUSDT"):
        assert by_symbol[symbol].failed
        assert by_symbol[symbol].result.startswith(f"unexpected {type(error).__name__}: ")
        assert by_symbol[symbol].decisions[0].reasons[0].text == "it could not be checked"
    lines = [entry.getMessage() for entry in caplog.records if entry.levelname == "ERROR"]
    assert [line.split(":")[0] for line in lines] == ["AAAUSDT 1h", "ZZZUSDT 1h"]
    assert all(line.isprintable() for line in (*lines, *to_text(found).splitlines()))
    with pytest.raises(SweepError, match="not done: AAAUSDT 1h, ZZZUSDT 1h; the table says why"):
        raise_if_undone(found)


def test_a_demotion_that_fails_unexpectedly_stops_no_other_market(trained, monkeypatch):
    serve(trained, ACCEPTED)
    named(trained, "ZZZUSDT")
    monkeypatch.setattr("percoin.retrain.round.demote", lambda *_: 1 / 0)
    first, second = run_round(task(trained, watch=gone), NOW).outcomes
    assert (first.failed, first.result) == (True, "unexpected ZeroDivisionError: division by zero")
    assert second.state.symbol == "ZZZUSDT"


def test_a_source_whose_bars_end_unexpectedly_is_no_end_of_the_round(trained, monkeypatch, caplog):
    serve(trained, ACCEPTED)

    def load(*_args):
        raise KeyError("open_time")

    monkeypatch.setattr(BarStore, "load", load)
    state = looked(trained, "source=store").state
    assert state.n_new_bars.why.startswith("unexpected KeyError: 'open_time'; ")
    assert caplog.records[-1].getMessage().startswith("BTCUSDT 1h: its bars cannot be read: ")


def test_text_of_a_manifest_forges_no_line_and_moves_no_cursor(trained):
    said = "no skill\nZZZUSDT 1h  keep    all is well\x1b[2J\ud800"
    serve(trained, Gate(StoredVerdict.REJECTED, (said,)), choices={"source": "\x1b]0;title\x07"})
    text = to_text(run_round(task(trained, "dry_run=true", AT_ONCE), NOW))
    assert all(line.isprintable() for line in text.splitlines())
    assert not any(line.startswith("ZZZUSDT") for line in text.splitlines())
    json.dumps(to_json(run_round(task(trained, "dry_run=true"), NOW))).encode()


@pytest.mark.parametrize(
    "job",
    [
        {"state": "failed", "ended_at": 1e300},
        {"state": "failed", "ended_at": "soon"},
        {"state": "failed", "ended_at": float("nan")},
        {"state": ["failed"]},
        {"state": "running", "result": [], "extra": 1},
        [],
    ],
)
def test_what_lies_in_the_outputs_folder_stops_nothing(trained, job):
    serve(trained, ACCEPTED)
    folder = trained / "outputs" / "retrain" / "BTCUSDT" / "1h"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(job))
    found = run_round(task(trained, "dry_run=true", AT_ONCE), NOW)
    assert (only(found).decisions[0].verb, only(found).failed) == (Verb.TRAIN, False)


def test_a_clock_in_the_year_9998_explains_and_ends_nothing(trained):
    serve(trained, ACCEPTED, choices={"source": "binance"}, source={"market": "spot"})
    late = datetime(9998, 12, 31, tzinfo=UTC)
    state = look_at(market(trained), task(trained, "source=binance"), late).state
    assert state.n_new_bars > 60_000_000
    assert "more than max_age_days" in to_text(run_round(task(trained, "dry_run=true"), late))


def test_live_skill_is_held_against_what_the_gate_measured_over_the_same_prior(trained):
    serve(trained)
    evaluation = read_model(market(trained)).evaluation
    state = look_at(market(trained), task(trained), NOW).state
    assert state.gate_lower == evaluation.model.recent_skill.lower
    assert state.gate_lower != evaluation.model.skill.lower


def test_looks_are_counted_up_to_what_a_number_can_say(trained):
    serve(trained, ACCEPTED, looks=10**30)
    assert looked(trained).n_looks == 1_000_000
    serve(trained, ACCEPTED, looks=True)
    assert looked(trained).n_looks == 1_000_000


def test_a_market_without_a_model_is_trained_if_it_is_named(trained):
    wanted = task(trained, "symbol=ETHUSDT", "tf=1h", "source=simulated", "dry_run=true")
    outcome = only(run_round(wanted, NOW))
    assert outcome.decisions[0].verb is Verb.TRAIN
    assert outcome.decisions[0].reasons[0].cause is Cause.MISSING
    assert not market_of(trained, "ETHUSDT").folder.exists()
    with pytest.raises(ConfigError, match="holds no model of ETHUSDT; name symbol and tf"):
        run_round(task(trained, "symbol=ETHUSDT"), NOW)


def test_an_empty_registry_is_no_error(tmp_path, capsys):
    assert main(places(tmp_path)) == 0
    assert capsys.readouterr().out.startswith(
        "no market in the registry; name symbol and tf to train"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["max_drift=0"], "max_drift=0 must be above 0"),
        (["demote_error=0.5"], "demote_error=0.5 must be at most 0.25"),
        (["min_resolved=10"], "min_resolved=10 must be at least 50"),
        (["pool_due_share=2"], "pool_due_share=2 must be at most 1"),
        (["retry_days=-1"], "retry_days=-1 must be at least 0"),
        (["workers=0"], "workers=0 must be at least 1, or null"),
        (["output=xml"], "output=xml must be one of text, json"),
        (["max_ages_days=3"], "max_ages_days is not a setting; did you mean max_age_days?"),
        (["schedule=daily"], "schedule is no setting any more: leave it out, and start each round"),
        (["+at=03:00"], "at is no setting any more: leave it out, and start each round with cron"),
        (["tf.threshold=1", "tf=1h"], "tf.threshold is a setting of trainings"),
        (["symbol=../x"], "is not a market"),
        (["record_url=nonsense"], "record_url cannot be used: it is no URL of a database"),
        (["record_url=postgresql://me:secret@h:port/x"], "record_url cannot be used: it is no URL"),
    ],
)
def test_a_command_that_cannot_be_meant_is_one_line(monkeypatch, capsys, arguments, said):
    monkeypatch.setattr("sys.argv", ["percoin.retrain", *arguments])
    assert main(arguments) == EXIT_USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert len(captured.err.splitlines()) == 1


def test_a_copy_of_the_models_with_its_links_followed_says_what_stands_in_the_way(trained):
    serve(trained, ACCEPTED)
    where = market(trained)
    target = where.link.resolve()
    where.link.unlink()
    shutil.copytree(target, where.link)
    outcome = only(run_round(task(trained, watch=gone), NOW))
    assert outcome.failed
    assert "is a plain folder, so there is no version to demote" in outcome.result


def test_new_bars_are_those_that_open_after_the_last_one_closed():
    bars = SimulatedSource(seed=0, n_bars=300).load("BTCUSDT", Timeframe.H1)
    last_known = bars.slice(0, 250).close_time().to_pydatetime()
    assert count_after(bars, last_known) == 50
    assert count_after(bars.slice(0, 250), last_known) == 0


def test_a_round_measures_the_rules_behind_the_models_once(trained):
    folder = trained / "data" / "source_worth" / "BTCUSDT"
    run_round(task(trained, "dry_run=true"), NOW)
    assert not folder.exists()
    run_round(task(trained), NOW)
    (kept,) = folder.iterdir()
    assert set(json.loads(kept.read_text())["sources"]) == {"pro", "rsi_ma", "momentum"}
    before = kept.stat().st_mtime_ns
    run_round(task(trained), NOW)
    assert kept.stat().st_mtime_ns == before


def test_a_data_folder_that_cannot_be_written_is_said_and_ends_no_round(trained, caplog):
    (trained / "data" / "source_worth").write_text("a file in the place of the folder")
    run_round(task(trained), NOW)
    assert "BTCUSDT 1h" in caplog.text
    assert "WORTH not kept" in caplog.text


def test_what_cannot_be_measured_for_an_unknown_reason_ends_no_round(trained, monkeypatch, caplog):
    def broken(*args):
        raise ZeroDivisionError("of days")

    monkeypatch.setattr("percoin.signals.measure.measure_again", broken)
    assert run_round(task(trained), NOW).outcomes
    assert "WORTH not measured: BTCUSDT 1h: unexpected ZeroDivisionError: of days" in caplog.text
