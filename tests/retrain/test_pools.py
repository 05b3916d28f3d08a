"""Markets that share a network: all are trained, or none is."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bars.archive_server import serving, without_proxies
from registry.command.trained_registry import add_version, market, served
from retrain.pooled_registry import MARKETS, N_BARS, train_three, write_bars
from retrain.retrain_runs import ACCEPTED, AT_ONCE, REJECTED, market_of, places, tree

from percoin.bars.sources.simulated import SimulatedSource
from percoin.cli import compose_config
from percoin.config import TrainConfig, typed
from percoin.errors import BarsNotFoundError, FetchError
from percoin.registry.artifact import load_artifact
from percoin.registry.catalogue import version_ids
from percoin.registry.manifest import Manifest
from percoin.retrain import trainings
from percoin.retrain.__main__ import read_task
from percoin.retrain.decisions import Absent, Cause, LiveSkill, Verb, decide
from percoin.retrain.pools import find_pools
from percoin.retrain.round import run_round
from percoin.retrain.states import Watched, job_folder, look_at
from percoin.retrain.trainings import pool_job_of
from percoin.sweep.jobs import Job, JobRecord, JobState, write_record
from percoin.types import Timeframe

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def pool_once(tmp_path_factory) -> Path:
    """A trained pool, all of whose bars it knows; not to be changed."""
    folder = tmp_path_factory.mktemp("pool")
    train_three(folder)
    return folder


@pytest.fixture
def pool(pool_once, tmp_path) -> Path:
    """A copy of it, to be changed; its bars may grow."""
    return shutil.copytree(pool_once, tmp_path / "pool", symlinks=True)


def task(folder: Path, *arguments: str):
    source = ("source=files", f"source.path={folder / 'bars'}")
    return read_task([*places(folder), *source, AT_ONCE, *arguments])


def explained(folder: Path, *arguments: str):
    return run_round(task(folder, "dry_run=true", *arguments), NOW)


def decisions(found) -> dict[str, tuple[Verb, Cause, str]]:
    return {
        outcome.state.symbol: (
            outcome.decisions[0].verb,
            outcome.decisions[0].reasons[0].cause,
            outcome.decisions[0].reasons[0].text,
        )
        for outcome in found.outcomes
    }


def shared(folder: Path, *arguments: str):
    wanted = task(folder, *arguments)

    def look(where):
        return look_at(where, wanted, NOW)

    subjects = [look(market_of(folder, symbol)) for symbol in MARKETS]
    (found,) = find_pools(subjects, look, wanted.settings, wanted.source)
    return found, wanted.settings


def test_new_bars_of_all_make_a_pool_due_and_each_market_says_why(pool):
    write_bars(pool, N_BARS, *MARKETS)
    before = tree(pool)
    found = explained(pool)
    assert decisions(found) == dict.fromkeys(
        MARKETS,
        (
            Verb.TRAIN,
            Cause.POOL,
            "its pool is trained as one: 3 of its 3 models are due, not below pool_due_share=0.5",
        ),
    )
    assert all(o.decisions[0].reasons[1].cause is Cause.AGE for o in found.outcomes)
    assert found.notes == ()
    assert tree(pool) == before


def test_a_dry_run_counts_a_market_that_would_be_demoted_among_those_that_are_due(pool):
    write_bars(pool, N_BARS, *MARKETS)
    add_version(pool, gate=ACCEPTED)
    lost = LiveSkill(-0.04, -0.05, -0.03, 5_000, 1_000.0, 180.0)

    def watch(manifest: Manifest) -> Watched:
        unknown = Absent("not measured")
        return Watched(unknown, lost if manifest.symbol == "BTCUSDT" else unknown)

    found = run_round(replace(task(pool, "dry_run=true"), watch=watch), NOW)
    verbs = {o.state.symbol: [decision.verb for decision in o.decisions] for o in found.outcomes}
    assert verbs == {
        "BTCUSDT": [Verb.DEMOTE, Verb.TRAIN],
        "ETHUSDT": [Verb.TRAIN],
        "SOLUSDT": [Verb.TRAIN],
    }
    assert "3 of its 3 models are due" in decisions(found)["ETHUSDT"][2]


def test_a_pool_waits_until_enough_of_its_markets_are_due(pool):
    write_bars(pool, N_BARS, "ETHUSDT")
    found = decisions(explained(pool))
    assert found["ETHUSDT"] == (
        Verb.KEEP,
        Cause.POOL,
        "its pool is trained as one, and waits: 1 of its 3 models is due, below pool_due_share=0.5",
    )
    assert found["BTCUSDT"][:2] == (Verb.KEEP, Cause.NEW_BARS)
    any_of_them = decisions(explained(pool, "pool_due_share=0"))
    assert {verb for verb, _, _ in any_of_them.values()} == {Verb.TRAIN}
    write_bars(pool, N_BARS, "SOLUSDT")
    assert {verb for verb, _, _ in decisions(explained(pool)).values()} == {Verb.TRAIN}


def test_nothing_is_due_so_nothing_is_trained(pool):
    assert {verb for verb, _, _ in decisions(explained(pool, "pool_due_share=0")).values()} == {
        Verb.KEEP
    }
    write_bars(pool, N_BARS, *MARKETS)
    lately = decisions(explained(pool, "retry_days=7"))
    assert {(verb, cause) for verb, cause, _ in lately.values()} == {
        (Verb.KEEP, Cause.TRIED_LATELY)
    }


def test_a_market_that_is_named_brings_its_pool_along(pool):
    write_bars(pool, N_BARS, *MARKETS)
    found = explained(pool, "symbol=ETHUSDT")
    assert list(decisions(found)) == ["ETHUSDT", "BTCUSDT", "SOLUSDT"]
    assert {verb for verb, _, _ in decisions(found).values()} == {Verb.TRAIN}


def test_one_line_says_that_a_market_of_a_pool_has_no_bars_any_more(pool):
    write_bars(pool, N_BARS, "ETHUSDT")
    (pool / "bars" / "SOLUSDT" / "1h.parquet").unlink()
    found = explained(pool)
    # One of the two that are left is half of them.
    assert decisions(found)["ETHUSDT"][0] is Verb.TRAIN
    verb, cause, text = decisions(found)["SOLUSDT"]
    assert (verb, cause) == (Verb.KEEP, Cause.OBSTACLE)
    assert text.startswith("it takes no part in its pool: it has no bars that can be used (no file")
    (note,) = found.notes
    assert note.startswith("pool of 3 markets 1h leaves out 1: SOLUSDT has no bars that can be")
    shutil.rmtree(pool / "bars" / "BTCUSDT")
    alone = decisions(explained(pool))["ETHUSDT"]
    assert alone[:2] == (Verb.KEEP, Cause.OBSTACLE)
    assert alone[2].startswith("a pool needs at least two markets")


def test_a_market_with_a_model_of_its_own_is_no_longer_one_of_the_pool(pool):
    write_bars(pool, N_BARS, *MARKETS)
    own = load_artifact(pool / "models", "BTCUSDT", Timeframe.H1).manifest.config
    own = {**own, "recipe": "per_market", "symbol": "BTCUSDT", "blend": "none"}
    add_version(pool, gate=ACCEPTED, config=own, pool=None)
    found = explained(pool)
    assert decisions(found)["BTCUSDT"][:2] == (Verb.TRAIN, Cause.AGE)
    assert "2 of its 2 models" in decisions(found)["ETHUSDT"][2]
    assert found.notes == ("pool of 3 markets 1h leaves out 1: BTCUSDT now has a model of its own",)
    network, settings = shared(pool)
    assert network.taking_part == ("ETHUSDT", "SOLUSDT")
    asked = typed(compose_config("train", pool_job_of(network, settings).overrides), TrainConfig)
    assert asked.symbols == MARKETS
    assert asked.pooled_symbols == ("ETHUSDT", "SOLUSDT")


def test_a_model_that_began_with_its_own_pooled_one_belongs_to_that_pool(pool):
    write_bars(pool, N_BARS, *MARKETS)
    manifest = load_artifact(pool / "models", "BTCUSDT", Timeframe.H1).manifest
    own = {"recipe": "per_market", "init": "pooled", "symbol": "BTCUSDT", "blend": "none"}
    config = {**manifest.config, **own}
    began = replace(manifest.pool, started_from=manifest.version_id, improved=True)
    add_version(pool, gate=ACCEPTED, config=config, pool=began)
    assert "3 of its 3 models" in decisions(explained(pool))["BTCUSDT"][2]
    elsewhere = replace(began, started_from="20250101T000000000000Z-0123456789ab")
    add_version(pool, gate=ACCEPTED, config=config, pool=elsewhere)
    verb, cause, text = decisions(explained(pool))["BTCUSDT"]
    assert (verb, cause) == (Verb.KEEP, Cause.OBSTACLE)
    assert text.startswith("it started from the pooled model of another market or of a folder")


def test_a_pool_whose_bars_nobody_names_is_left_as_it_is_though_it_was_interrupted(pool):
    write_bars(pool, N_BARS, *MARKETS)
    settings = task(pool).settings
    folder = job_folder(market(pool), settings, MARKETS)
    folder.mkdir(parents=True)
    write_record(folder, JobRecord(state=JobState.INTERRUPTED))
    # The manifests say files, and a manifest chooses no folder.
    unnamed = read_task([*places(pool), AT_ONCE])
    found = decisions(run_round(unnamed, NOW))
    assert {(verb, cause) for verb, cause, _ in found.values()} == {(Verb.KEEP, Cause.OBSTACLE)}
    assert all("source=files source.path=FOLDER" in text for _, _, text in found.values())
    network, _ = shared(pool)
    assert network.began
    due = decide(shared_state(pool), task(pool).rules, NOW)
    held = replace(network, obstacle="no bars").decide(dict.fromkeys(MARKETS, due), unnamed.rules)
    assert {decision.verb for decision in held.values()} == {Verb.KEEP}
    going = network.decide(dict.fromkeys(MARKETS, due), unnamed.rules)
    assert {decision.verb for decision in going.values()} == {Verb.TRAIN}


def shared_state(folder: Path):
    return look_at(market(folder), task(folder), NOW).state


def test_a_market_of_a_pool_that_cannot_be_looked_at_takes_no_part(pool, monkeypatch):
    write_bars(pool, N_BARS, *MARKETS)

    def look(where, *rest):
        if where.symbol == "SOLUSDT":
            raise OverflowError("int too large to convert to float")
        return look_at(where, *rest)

    monkeypatch.setattr("percoin.retrain.round.look_at", look)
    found = explained(pool)
    assert decisions(found)["BTCUSDT"][0] is Verb.TRAIN
    assert decisions(found)["SOLUSDT"][0] is Verb.KEEP
    assert found.notes == ("pool of 3 markets 1h leaves out 1: SOLUSDT could not be checked",)


def test_a_pool_of_which_a_manifest_names_other_markets_brings_none_along(pool):
    write_bars(pool, N_BARS, *MARKETS)
    before = load_artifact(pool / "models", "BTCUSDT", Timeframe.H1).manifest
    add_version(pool, gate=ACCEPTED, config={**before.config, "symbol": "BTCUSDT,XRPUSDT"})
    found = explained(pool, "symbol=BTCUSDT")
    assert list(decisions(found)) == ["BTCUSDT"]
    verb, cause, text = decisions(found)["BTCUSDT"]
    assert (verb, cause) == (Verb.KEEP, Cause.OBSTACLE)
    assert "name other markets than those that it was trained on (ETHUSDT, SOLUSDT)" in text


def test_a_pool_is_trained_by_its_newest_settings_and_each_market_by_its_own_looks(pool):
    before = load_artifact(pool / "models", "BTCUSDT", Timeframe.H1).manifest
    add_version(pool, gate=REJECTED)
    add_version(pool, gate=ACCEPTED, config={**before.config, "batch_size": 32})
    network, settings = shared(pool)
    job = pool_job_of(network, settings)
    asked = typed(compose_config("train", job.overrides), TrainConfig)
    assert (asked.recipe, asked.symbols, asked.batch_size) == ("pooled", MARKETS, 32)
    assert [asked.looks_of(symbol) for symbol in MARKETS] == [2, 1, 1]
    assert asked.pooled.windows_per_epoch == 2000
    assert asked.models_dir == str(pool / "models")
    assert (job.name, job.markets) == ("pool of 3 markets 1h", MARKETS)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.INTERRUPTED])
def test_an_interrupted_training_of_a_pool_goes_on_though_few_are_due(pool, state):
    write_bars(pool, N_BARS, "ETHUSDT")
    settings = task(pool).settings
    folder = job_folder(market(pool), settings, MARKETS)
    folder.mkdir(parents=True)
    write_record(folder, JobRecord(state=state))
    found = decisions(explained(pool, "retry_days=7"))
    assert {text for _, _, text in found.values()} == {
        "the training of its pool was interrupted and goes on"
    }
    assert {verb for verb, _, _ in found.values()} == {Verb.TRAIN}


def test_what_a_pool_may_not_be_trained_by_is_said_by_each_of_its_markets(pool):
    write_bars(pool, N_BARS, *MARKETS)
    before = load_artifact(pool / "models", "BTCUSDT", Timeframe.H1).manifest
    add_version(pool, gate=ACCEPTED, config={**before.config, "lr": "much"})
    found = run_round(task(pool), NOW)
    assert all(outcome.failed for outcome in found.outcomes)
    assert all("cannot be read by this percoin" in outcome.result for outcome in found.outcomes)
    assert not (pool / "outputs" / "retrain").exists()


def answering(monkeypatch, **answers: object) -> None:
    """What an exchange gives for each market: how many new bars, or an error."""

    def fetch(_job: Job, symbol: str, _data_end: datetime | None) -> int:
        answer = answers[symbol]
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    monkeypatch.setattr(trainings, "fetch", fetch)


def test_a_market_that_its_exchange_does_not_know_takes_no_part(pool, monkeypatch):
    network, settings = shared(pool)
    gone = BarsNotFoundError("SOLUSDT", Timeframe.H1, "the exchange does not know it", "spell it")
    answering(monkeypatch, BTCUSDT=500, ETHUSDT=400, SOLUSDT=gone)
    left, n_new = trainings.fetch_pool(network, settings)
    assert n_new == {"BTCUSDT": 500, "ETHUSDT": 400}
    assert left.taking_part == ("BTCUSDT", "ETHUSDT")
    assert left.note.endswith(
        "SOLUSDT has no bars that can be used (the exchange does not know it)"
    )


def test_a_market_that_its_exchange_no_longer_lists_takes_no_part(pool, monkeypatch):
    without_proxies(monkeypatch)
    network, settings = shared(pool)
    with serving() as server:
        source = ("source=binance", "source.archive_url=null", f"source.api_url={server.url}")
        network = replace(network, source=source)
        for symbol in MARKETS:
            bars = SimulatedSource(seed=0, n_bars=N_BARS, edge=0.9).load(symbol, Timeframe.H1)
            server.add(bars.slice(0, N_BARS - 24), bars.close_time(N_BARS - 25))
        assert trainings.fetch_pool(network, settings)[0].taking_part == MARKETS

        server.bars.pop(("spot", "SOLUSDT"))
        for symbol in MARKETS[:2]:
            bars = SimulatedSource(seed=0, n_bars=N_BARS, edge=0.9).load(symbol, Timeframe.H1)
            server.add(bars, bars.close_time())
        left, n_new = trainings.fetch_pool(network, settings)
    assert left.taking_part == ("BTCUSDT", "ETHUSDT")
    assert set(n_new) == {"BTCUSDT", "ETHUSDT"}
    assert left.note.endswith(
        "SOLUSDT has no bars that can be used (binance has no spot market of that name)"
    )


def test_an_exchange_that_is_out_of_reach_is_no_reason_to_leave_a_market_out(pool, monkeypatch):
    write_bars(pool, N_BARS, *MARKETS)
    away = FetchError("SOLUSDT", Timeframe.H1, "no answer", "try again")
    answering(monkeypatch, BTCUSDT=200, ETHUSDT=200, SOLUSDT=away)
    found = run_round(task(pool), NOW)
    assert {outcome.result for outcome in found.outcomes} == {"SOLUSDT 1h: no answer; try again"}
    assert all(outcome.failed for outcome in found.outcomes)


def test_a_pool_for_which_no_new_bar_has_come_is_left_as_it_is(pool, monkeypatch):
    write_bars(pool, N_BARS, *MARKETS)
    answering(monkeypatch, BTCUSDT=0, ETHUSDT=0, SOLUSDT=0)
    found = run_round(task(pool), NOW)
    for outcome in found.outcomes:
        assert [decision.verb for decision in outcome.decisions] == [Verb.TRAIN, Verb.KEEP]
        assert outcome.decisions[1].reasons[0].cause is Cause.NEW_BARS
    assert not any(outcome.failed for outcome in found.outcomes)


@pytest.fixture
def one_core() -> Iterator[None]:
    """Two threads for so small a network would wait for each other."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {random.choice(sorted(cores))})
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_a_round_trains_a_pool_once_and_every_market_has_its_own_verdict(pool):
    write_bars(pool, N_BARS, *MARKETS)
    add_version(pool, gate=REJECTED)
    before = {symbol: versions_of(pool, symbol) for symbol in MARKETS}
    (pool / "bars" / "SOLUSDT" / "1h.parquet").unlink()
    found = run_round(task(pool), NOW)
    results = {outcome.state.symbol: outcome.result for outcome in found.outcomes}
    assert results.pop("SOLUSDT") == ""
    pools = set()
    for symbol, result in results.items():
        manifest = load_artifact(pool / "models", symbol, Timeframe.H1).manifest
        assert result == f"trained and promoted: {manifest.version_id} is accepted"
        assert len(versions_of(pool, symbol)) == len(before[symbol]) + 1
        assert manifest.bars.n_bars == N_BARS
        assert manifest.config["pooled"]["without"] == ["SOLUSDT"]
        assert manifest.config["looks"] == (2 if symbol == "BTCUSDT" else 1)
        pools.add(manifest.pool.test_time)
    assert len(pools) == 1
    assert versions_of(pool, "SOLUSDT") == before["SOLUSDT"]
    assert found.notes[0].startswith("pool of 3 markets 1h leaves out 1: SOLUSDT has no bars")
    summary = json.loads((pool / "outputs" / "retrain" / "summary.json").read_text())
    assert [job["name"] for job in summary["jobs"]] == ["BTCUSDT 1h", "ETHUSDT 1h"]

    # The bars of the third come again: it waits until its pool is due.
    write_bars(pool, N_BARS, "SOLUSDT")
    later = decisions(explained(pool))
    assert later["SOLUSDT"][:2] == (Verb.KEEP, Cause.POOL)
    assert served(pool) == versions_of(pool, "BTCUSDT")[-1]


def versions_of(folder: Path, symbol: str) -> list[str]:
    return version_ids(market_of(folder, symbol))
