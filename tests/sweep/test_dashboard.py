from dataclasses import replace

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from summary_builders import SYMBOLS, ended, finished, kept
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from percoin.report.board import make_board
from percoin.sweep.dashboard import draw_skills, write_dashboard
from percoin.sweep.jobs import JobState
from percoin.sweep.results import gather

pytestmark = pytest.mark.usefixtures("painted")


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def text_of(events, tag):
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


@pytest.fixture
def results(tmp_path):
    models = tmp_path / "models"
    folder = tmp_path / "sweep-1"
    jobs = [
        finished(folder, models, "BTCUSDT", 0.03, 1e-7, "15m", val_loss=(0.9, 0.8, 0.85)),
        finished(folder, models, "ETHUSDT", 0.0, 0.5, "1h", val_loss=(0.7, 0.6)),
        finished(folder, models, "ETHUSDT", 0.0, 0.5, "1h", "lr=0.1/x", val_loss=(0.5,)),
        ended(folder, "SOLUSDT", JobState.FAILED, "no | bars"),
        ended(folder, "XRPUSDT", JobState.INTERRUPTED, "told to stop"),
    ]
    csv = folder / "XRPUSDT" / "15m" / "csv"
    logged = {2: ["0,,9", "0,1.5,10", "1,1.4,20"], 10: ["1,1.3,20", "2,1.2,30"]}
    for version, lines in logged.items():
        (csv / f"version_{version}").mkdir(parents=True)
        text = "\n".join(["epoch,loss/val,step", *lines, "3,1."])
        (csv / f"version_{version}" / "metrics.csv").write_text(text)
    return gather(folder, jobs, models, 5.0)


def test_one_run_holds_leaderboard_pictures_and_curves(results):
    folder = results.folder / "tensorboard"
    left = results.folder / ".tensorboard.4711"
    left.mkdir()
    write_dashboard(results, folder)
    assert not left.exists()  # of a sweep that was killed

    events = read(folder)
    scalars = {
        tag: [(event.step, round(event.value, 6)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    assert scalars == {
        "validation loss 15m/BTCUSDT": [(1, 0.9), (2, 0.8), (3, 0.85)],
        "validation loss 1h/ETHUSDT": [(1, 0.7), (2, 0.6)],
        "validation loss 1h lr=0.1 x/ETHUSDT": [(1, 0.5)],
        "validation loss 15m/XRPUSDT": [(1, 1.5), (2, 1.3), (3, 1.2), (4, 1.0)],
    }
    assert events.Tags()["images"] == ["skills/15m", "skills/1h", "skills/1h lr=0.1 x"]
    assert "1 of 3 models has shown skill" in text_of(events, "answer")
    assert "| failed | 1 |" in text_of(events, "jobs")
    assert r"| SOLUSDT 15m | failed | no \| bars |" in text_of(events, "jobs")
    assert text_of(events, "leaderboard").count("\n| ETHUSDT 1h") == 2
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


def test_a_later_run_takes_the_place_of_the_earlier_one(results):
    folder = results.folder / "tensorboard"
    write_dashboard(results, folder)
    write_dashboard(replace(results, jobs=results.jobs[:1]), folder)

    assert len(list(folder.iterdir())) == 1
    assert read(folder).Tags()["scalars"] == ["validation loss 15m/BTCUSDT"]


def test_jobs_of_a_sweep_over_settings_are_compared_by_hparams(tmp_path):
    models, folder = tmp_path / "models", tmp_path / "sweep-1"
    jobs = [
        finished(folder, models, f"{name}USDT", skill, 0.1, "1h", f"lr={lr}")
        for name, skill, lr in (("A", 0.03, 0.1), ("B", 0.0, 0.01))
    ]
    results = gather(folder, jobs, models, 5.0)
    write_dashboard(results, folder / "tensorboard")

    places = sorted((folder / "tensorboard" / "hparams").glob("*/*/*"))
    assert [path.name for path in places] == ["lr=0.1", "lr=0.01"]
    for place, skill, symbol in zip(places, (0.03, 0.0), ("AUSDT", "BUSDT"), strict=True):
        events = read(place)
        assert events.Scalars("result/test_log_loss_skill")[0].value == pytest.approx(skill)
        start = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        found = HParamsPluginData.FromString(start).session_start_info.hparams
        assert found["symbol"].string_value == symbol
        assert found["verdict"].string_value


def test_the_picture_names_every_market_of_a_full_bar_length(tmp_path):
    models = [kept(tmp_path, symbol, 0.01, 0.01)[1] for symbol in SYMBOLS]
    entries = make_board(models).entries

    figure = draw_skills(entries, "15m $x$ \\oops")
    FigureCanvasAgg(figure).draw()

    panels = figure.axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == sorted(SYMBOLS)
    assert len(panels) == 3
