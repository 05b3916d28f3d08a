"""What can be known of a training before its libraries are imported, which takes many seconds."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from percoin.bars.sources.binance.exchange import BINANCE
from percoin.bars.sources.files import FilesSource
from percoin.bars.sources.sample import SampleSource
from percoin.bars.store import BarStore
from percoin.config import BinanceConfig, FilesConfig, SampleConfig, StoreConfig, TrainConfig
from percoin.errors import ConfigError, DataError, FetchError, PoolError
from percoin.types import Timeframe

NO_GPU = "trainer=gpu needs a GPU that torch can use; without one use trainer=cpu"
# Of NVIDIA's driver, of Windows' below WSL, of AMD's, of NVIDIA's boards.
_GPU_DEVICES = ("nvidia[0-9]*", "dxg", "kfd", "nvhost-gpu", "nvgpu")
_GPU_LIBRARIES = ("libcuda.so.1", "libamdhip64.so")
_API_HOSTS = {"spot": "https://api.binance.com", "perp": "https://fapi.binance.com"}
# Silence for so long proves nothing: the download itself has more patience.
_PROBE_SECS = 3.0


def check_device(settings: TrainConfig) -> None:
    """Refuse a GPU on a machine without the driver of any.

    With a driver, torch decides later whether its GPU is of use.

    Raises:
        ConfigError: There is neither a device file nor a library of a driver.
    """
    if settings.model.has_network and settings.trainer.accelerator == "gpu" and not may_have_gpu():
        raise ConfigError(NO_GPU)


def may_have_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether this machine shows a driver of a GPU, by its device files and libraries."""
    if not sys.platform.startswith("linux"):
        return True
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    if any(next(devices.glob(name), None) for name in _GPU_DEVICES):
        return True
    return any(map(_can_load, _GPU_LIBRARIES))


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def check_network(
    settings: TrainConfig, markets: Iterable[tuple[str, Timeframe]], title: str, length: str
) -> None:
    """Refuse a training on bars of an exchange if there is no network and no bar is stored.

    Args:
        settings: Of the training, or of any job of a sweep.
        markets: All that bars are needed of.
        title: Of the training or the sweep, for the message.
        length: Of its bars, for the message.

    Raises:
        FetchError: Neither the exchange nor the archive can be reached.
    """
    source = settings.source
    if not isinstance(source, BinanceConfig) or source.exchange != BINANCE or settings.resume:
        return
    stored = BarStore(Path(settings.data_dir) / "bars").markets()
    if getproxies() or not set(stored).isdisjoint(markets):
        return
    urls = [source.api_url or _API_HOSTS[source.market], source.archive_url]
    servers = {host: port for url in urls if url for host, port in [_server(url)]}
    timeout = min(_PROBE_SECS, source.timeout_secs)
    with ThreadPoolExecutor(len(servers)) as threads:
        tried = [threads.submit(_refuses, *server, timeout) for server in servers.items()]
        if not all(answer.result() for answer in tried):
            return
    named = ", ".join(f"{host} cannot be reached (no connection)" for host in servers)
    advice = "check the connection, or use other bars: source=files source.path=FOLDER, "
    raise FetchError(title, length, named, f"{advice}source=sample, source=simulated")


def check_bars(
    settings: TrainConfig, markets: Sequence[tuple[str, Timeframe]], all_needed: bool = True
) -> None:
    """Refuse a training on bars of this machine that has none of its markets.

    Args:
        settings: Of the training, or of any job of a sweep.
        markets: All that bars are needed of.
        all_needed: Whether one missing market prevents the training.

    Raises:
        DataError: The bars of the only market are missing, or those of all.
        PoolError: Bars of a pool are missing; names every market without them.
    """
    source: SampleSource | FilesSource | BarStore
    match settings.source:
        case SampleConfig():
            source = SampleSource()
        case FilesConfig():
            source = FilesSource(settings.source.path)
        case StoreConfig():
            source = BarStore(Path(settings.data_dir) / "bars")
        case _:
            return
    missing: list[DataError] = []
    for market in markets:
        try:
            source.check_has(*market)
        except DataError as error:
            missing.append(error)
    if missing and all_needed and len(markets) > 1:
        raise without_bars(missing, len(markets))
    if len(missing) == len(markets):
        raise missing[0]


def without_bars(missing: Sequence[DataError], n_markets: int) -> PoolError:
    """The error of a pool some of whose markets have no bars."""
    named = ", ".join(f"{error.symbol} ({error.without_market})" for error in missing)
    return PoolError(
        f"{len(missing)} of {n_markets} markets have no bars to train on: {named}; nothing was "
        "trained, leave them out or bring their bars"
    )


def _server(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)


def _refuses(host: str, port: int, timeout: float) -> bool:
    """Whether there is surely no connection; a server that is slow gets the benefit of doubt."""
    try:
        socket.create_connection((host, port), timeout).close()
    except TimeoutError:
        return False
    except OSError:
        return True
    return False
