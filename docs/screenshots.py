"""Takes the pictures of the page that SERVE.md shows: ``python docs/screenshots.py``.

Ten models are trained on simulated bars with a planted edge, one of them answers bar by bar on a
clock of its own until its track record is full, and a server with all of it is looked at in
Chromium, on a wide screen and on a telephone. Nothing outside this machine is asked for. Some
minutes on two cores.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from percoin.bars.sources.playing import PlayingSource
from percoin.bars.sources.simulated import SimulatedSource
from percoin.serve import make_setup, read_settings, read_symbols_file
from percoin.serving.server import PredictionServer

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "serving")]

from headless_chromium import BROWSERS, Chromium  # noqa: E402
from small_servers import RunningServer, bring_up_to_date  # noqa: E402

EDGE, SEED = 0.45, 0
SIMULATED = ("source=simulated", f"source.edge={EDGE}", f"source.seed={SEED}")
SYMBOLS = read_symbols_file(ROOT / "symbols")
MODELLED = SYMBOLS[:10]
SHOWN = MODELLED[0]
N_RECORDED = 200
# Name, width, height, whether it is a telephone.
SCREENS = (("", 1440, 900, False), ("-phone", 390, 844, True))


def main() -> int:
    """Write the pictures into this folder."""
    if not any(map(shutil.which, BROWSERS)):
        print(f"no Chromium here (looked for {', '.join(BROWSERS)}): install one, for example")
        print("apt-get install chromium, and run this again")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder)
        print(f"recording {N_RECORDED} answers of {SHOWN}", flush=True)
        fill_record(folder)
        served = (*SIMULATED, f"symbol={','.join(SYMBOLS)}", "tf=15m,1h")
        with RunningServer(folder, *served) as server, Chromium(folder / "profile") as browser:
            server.wait_until_started()
            for screen in SCREENS:
                take(browser, server.url, *screen)
    return 0


def train(folder: Path) -> None:
    """Train one small model for each of the first ten markets."""
    print(f"training {len(MODELLED)} models", flush=True)
    command = [sys.executable, str(ROOT / "train.py"), "-m", f"symbol={','.join(MODELLED)}"]
    wanted = ["tf=15m", "model=logistic", "history_days=120", *SIMULATED]
    subprocess.run([*command, *wanted], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def fill_record(folder: Path) -> None:
    """Answer for one market at each of its last closes, as a server does that runs all the time."""
    now = datetime.now(UTC).replace(second=30) - timedelta(minutes=15 * N_RECORDED)
    settings = read_settings([*SIMULATED, f"symbol={SHOWN}", "tf=15m"])
    settings.models_dir, settings.data_dir = str(folder / "models"), str(folder / "data")
    playing = PlayingSource(SimulatedSource(SEED, settings.source.n_bars, EDGE), lambda: now)
    setup = replace(
        make_setup(settings, None), make_source=lambda n_bars: playing, clock=lambda: now
    )
    server = PredictionServer(setup)
    for _ in range(N_RECORDED):
        bring_up_to_date(server)
        now += timedelta(minutes=15)
    server.stop(10)


def take(browser: Chromium, url: str, name: str, width: int, height: int, mobile: bool) -> None:
    """Take the board and an opened market on one screen."""
    browser.show_as(width, height, mobile=mobile)
    browser.open("about:blank")
    browser.open(f"{url}/#tf=15m&sort=-confidence")
    browser.wait_for(
        f"document.querySelectorAll('#board tr[data-symbol]').length === {len(SYMBOLS)}"
    )
    browser.wait_for("document.querySelectorAll('#scoreboard tbody tr').length > 0", 60)
    write(browser, f"page{name}.png")
    browser.run(f"document.querySelector('#board tr[data-symbol={SHOWN}] button').click()")
    browser.wait_for("document.querySelector('#market[open] .chart .wick') !== null")
    write(browser, f"market{name}.png")


def write(browser: Chromium, name: str) -> None:
    """Write what is seen to a file of this folder."""
    (DOCS / name).write_bytes(browser.picture())
    print(f"wrote docs/{name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
