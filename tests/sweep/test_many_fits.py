"""A process that fits many models stays as large as it was after the first ones."""

import ctypes
import gc
import os
import threading
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from matplotlib.figure import Figure
from training.training_builders import make_dataset, make_plan, tiny_network

from percoin.dataset import MarketDataset
from percoin.plot.picture import write_picture
from percoin.training.fitted_network import FittedNetwork
from percoin.training.loggers import log_pictures
from percoin.training.run import train

# What painting keeps would count too.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("painted")]

N_FITS = 32
# What libraries set aside for themselves, once, has come by then.
N_FIRST_FITS = 8
# The allocator takes memory in steps of its own; a fit that kept its model would take more.
MOST_MIB = 40
KEPT_BY_NOBODY = (torch.Tensor, torch.nn.Module, pl.Trainer, Figure, MarketDataset)


@pytest.fixture(autouse=True)
def _one_core():
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def resident_mib() -> float:
    """What the process holds, without what its allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> list[str]:
    return sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.exists())


def live_objects() -> dict[str, int]:
    """How many objects there are of the kinds that each fit makes."""
    gc.collect()
    found = gc.get_objects()
    return {
        kind.__name__: sum(issubclass(type(each), kind) for each in found)
        for kind in KEPT_BY_NOBODY
    }


def fit(dataset: MarketDataset, folder: Path, draw: bool) -> None:
    loggers = [CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")]
    trained = train(dataset, tiny_network(), make_plan(epochs=1), folder, loggers)
    if draw:
        fitted = FittedNetwork(dataset=dataset, seed=0, secs=0.0, test=lambda: trained.module)
        pictures = fitted.pictures()
        log_pictures(loggers, pictures, step=1)
        for name, figure in pictures.items():
            write_picture(figure, folder / f"{name}.png")
    for logger in loggers:
        logger.finalize("success")


def test_32_fits_leave_no_memory_threads_or_files_behind(tmp_path):
    dataset = make_dataset(300)
    for number in range(N_FIRST_FITS):
        fit(dataset, tmp_path / str(number), draw=number % 2 == 0)
    objects, files, mib = live_objects(), open_files(), resident_mib()
    threads = threading.active_count()
    for number in range(N_FIRST_FITS, N_FITS):
        fit(dataset, tmp_path / str(number), draw=number % 2 == 0)

    assert live_objects() == objects
    assert open_files() == files
    assert threading.active_count() == threads
    assert resident_mib() - mib < MOST_MIB
