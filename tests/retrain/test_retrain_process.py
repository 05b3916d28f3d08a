"""The real command in real processes."""

import json
import os
import signal

import pytest
from registry.command.trained_registry import served
from retrain.pooled_registry import MARKETS, N_BARS, train_alone, train_three, write_bars
from retrain.retrain_runs import (
    ACCEPTED,
    AT_ONCE,
    REJECTED,
    market_of,
    places,
    record,
    run,
    serve,
    start,
    tree,
    wait_for,
)
from serving.small_servers import RunningServer

from percoin.registry.catalogue import check_market, version_ids

# Enough to be caught in the middle of, on any machine.
MANY_EPOCHS = {"epochs": 60, "optimizer": {"early_stopping_patience": 1000}}


def test_a_dry_run_explains_and_changes_nothing_on_disk(trained):
    serve(trained, ACCEPTED)
    before = tree(trained)
    code, stdout, stderr = run(trained, "dry_run=true", "output=json", AT_ONCE)
    assert (code, stderr) == (0, "")
    assert tree(trained) == before
    said = json.loads(stdout)
    assert said["dry_run"] is True
    (line,) = said["markets"]
    assert (line["symbol"], line["tf"], line["result"], line["version"]) == (
        *("BTCUSDT", "1h"),
        *(None, None),
    )
    (decision,) = line["decisions"]
    assert decision["decision"] == "train"
    first, *others = decision["reasons"]
    assert (first["cause"], first["due"]) == ("age", True)
    assert "more than max_age_days=30" in first["text"]
    assert [reason["cause"] for reason in others] == ["new_bars", "drift", "live_skill"]
    assert others[0]["text"].startswith("50 new bars since, 0.036, below max_new_bars_share=0.1")


@pytest.mark.slow
def test_a_due_market_is_trained_and_the_gate_keeps_the_accepted_one_in_place(trained):
    kept = serve(trained, ACCEPTED)
    code, stdout, stderr = run(trained, AT_ONCE)
    assert code == 0, stderr
    lines = stdout.splitlines()
    assert lines[0].startswith("BTCUSDT 1h  train   its data ends ")
    assert "result: trained, " in stdout
    assert f"{kept} stays" in " ".join(stdout.split())
    market = market_of(trained, "BTCUSDT")
    assert served(trained) == kept
    newest = version_ids(market)[-1]
    assert newest not in stderr
    assert record(trained)["result"]["version"] == newest > kept
    assert not [check for check in check_market(market) if check.problem]

    code, stdout, stderr = run(trained)
    assert (code, stderr) == (0, "")
    assert stdout.startswith("BTCUSDT 1h  keep    it was trained 0.0 days ago, less than retry_da")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_due_model_is_trained_accepted_and_served_by_a_server_that_runs_all_the_while(tmp_path):
    older = train_alone(tmp_path, "blend=logistic")
    write_bars(tmp_path, N_BARS, "BTCUSDT")
    served_by = ("symbol=BTCUSDT", "tf=1h", "chain=[ml,hold]", "check_secs=0.1")
    source = ("source=files", f"source.path={tmp_path / 'bars'}")
    with RunningServer(tmp_path, *source, *served_by, *places(tmp_path)[:2]) as server:
        server.wait_until_started()

        def answering() -> str:
            assert server.get("/api/predictions/BTCUSDT").json()["source"] == "ML_PER_COIN_V1"
            return server.get("/api/history/BTCUSDT").json()["predictions"][-1]["version_id"]

        assert answering() == older
        code, stdout, stderr = run(tmp_path, AT_ONCE, *source)
        assert code == 0, stderr
        newer = version_ids(market_of(tmp_path, "BTCUSDT"))[-1]
        assert newer > older
        assert f"result: trained and promoted: {newer} is accepted" in " ".join(stdout.split())
        server.wait_for(lambda: answering() == newer)
        [model] = server.get("/api/models").json()["models"]
        assert (model["version_id"], model["verdict"]) == (newer, "accepted")
    assert served(tmp_path) == newer
    # Bars that it knew no longer make it due; its age does, though not so soon.
    code, stdout, _ = run(tmp_path, "dry_run=true", *source)
    assert code == 0
    assert stdout.startswith("BTCUSDT 1h  keep    there is no new bar")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_training_of_a_pool_goes_on_where_it_was(tmp_path):
    train_three(tmp_path, "epochs=12", "optimizer.early_stopping_patience=1000")
    write_bars(tmp_path, N_BARS, *MARKETS)
    source = ("source=files", f"source.path={tmp_path / 'bars'}")
    first = start(tmp_path, AT_ONCE, *source)
    wait_for(tmp_path, first, lambda job: job["state"] == "running" and job["epoch"] >= 2)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    epoch = record(tmp_path)["epoch"]
    kept = {symbol: version_ids(market_of(tmp_path, symbol)) for symbol in MARKETS}

    code, stdout, stderr = run(tmp_path, *source)
    assert code == 0, stderr
    assert stdout.startswith("BTCUSDT 1h  train   the training of its pool was interrupted and goe")
    assert record(tmp_path)["resumed_from"] >= epoch
    for symbol in MARKETS:
        assert len(version_ids(market_of(tmp_path, symbol))) == len(kept[symbol]) + 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_round_goes_on_where_it_was_and_another_one_at_a_time_is_refused(trained):
    kept = serve(trained, REJECTED, **MANY_EPOCHS)
    first = start(trained, AT_ONCE)
    wait_for(trained, first, lambda job: job["state"] == "running" and job["epoch"] >= 2)
    code, _, stderr = run(trained, AT_ONCE)
    assert code == 1
    assert f"in use by process {first.pid} on " in stderr
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    epoch = record(trained)["epoch"]

    second = start(trained, AT_ONCE)
    wait_for(trained, second, lambda job: job["state"] == "running" and job["epoch"] > epoch)
    second.send_signal(signal.SIGTERM)
    stdout, stderr = second.communicate(timeout=60)
    assert second.returncode == 128 + signal.SIGTERM
    assert stderr.splitlines()[-1] == (
        "error: stopped by SIGTERM; not done: BTCUSDT 1h; the same command goes on"
    )
    assert "training interrupted" in stdout
    assert served(trained) == kept

    code, stdout, stderr = run(trained, AT_ONCE)
    assert code == 0, stderr
    assert record(trained)["state"] == "finished"
    assert record(trained)["resumed_from"] > epoch
    assert served(trained) > kept
