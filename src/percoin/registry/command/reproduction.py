"""Train a version again from its manifest and compare, bit for bit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from percoin import json_codec
from percoin.assembly import bar_source
from percoin.audit.pooled import bars_as_known, with_compared
from percoin.audit.served import bars_of
from percoin.bars.schema import Bars
from percoin.bars.store import BarStore
from percoin.config import RegistryConfig, TrainConfig
from percoin.dataset import with_newest_test_rows
from percoin.errors import ConfigError, DataError, VersionRefusedError
from percoin.evaluation.blend import NETWORK
from percoin.plugins import PluginSource
from percoin.printable import printable
from percoin.provenance import code_version, library_versions, machine_facts
from percoin.registry.artifact import Artifact, load_version
from percoin.registry.catalogue import find_version, version_ids
from percoin.registry.contents import read_metrics
from percoin.registry.layout import MarketFolder
from percoin.registry.manifest import Manifest, Refit
from percoin.registry.pool_record import PooledMarket, PoolRecord
from percoin.registry.publish import served_folder
from percoin.training.machine import check_machine, lacking
from percoin.training.own_parts import sources_of
from percoin.training.pipeline import prepare, train
from percoin.training.precision import with_precision
from percoin.training.recipes.recipe import FLEET_SECTION, OneMarket
from percoin.training.run_files import RunContext
from percoin.training.version_settings import pool_of, settings_of
from percoin.types import check_symbol

_MOST_THREADS = 256
_MOST_CHARS = 2000  # of a line
_NOTHING = "-"
# Fields of the manifest that a training decides.
_NUMBERS = ("scaling", "calibration", "regression", "blend", "combination", "last_row")


@dataclass(frozen=True)
class Compared:
    """One part of the model, compared between the registry and the new training.

    Attributes:
        part: What was compared.
        is_same: To the last bit.
        detail: How much of it, or how far apart.
    """

    part: str
    is_same: bool
    detail: str


@dataclass(frozen=True)
class Circumstance:
    """Something that the bits of a training depend on and that has changed.

    Attributes:
        name: For example ``code`` or ``library torch``.
        then: When the model was exported, by its manifest.
        now: Here.
    """

    name: str
    then: str
    now: str


@dataclass(frozen=True)
class Reproduction:
    """The result of a reproduction.

    Attributes:
        symbol: Market.
        timeframe: Bar length.
        version_id: The version that was trained again.
        compared: Part by part; empty if the bars were others and nothing was trained.
        changed: What is different from then.
    """

    symbol: str
    timeframe: str
    version_id: str
    compared: tuple[Compared, ...]
    changed: tuple[Circumstance, ...]

    @property
    def is_same(self) -> bool:
        """Whether every part came out the same."""
        return bool(self.compared) and all(entry.is_same for entry in self.compared)

    def as_text(self) -> str:
        """A line a part and a line a change."""
        verdict = "the same, bit for bit" if self.is_same else "NOT the same"
        if not self.compared:
            verdict = "not trained again, because the bars are not those of the manifest"
        lines = [f"{self.symbol} {self.timeframe} {self.version_id}: {verdict}"]
        width = 2 + max((len(entry.part) for entry in self.compared), default=0)
        lines += [
            f"  {entry.part:<{width}}{'same' if entry.is_same else 'DIFFERS'}: {entry.detail}"
            for entry in self.compared
        ]
        lines += [f"  changed since then: {c.name}: {c.then} -> {c.now}" for c in self.changed]
        # The text comes from a manifest and its metrics, which anybody may have written.
        lines = [printable(line, _MOST_CHARS) for line in lines]
        if not self.changed:
            lines.append("  code, libraries, bars and machine are those of the manifest")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        return {**asdict(self), "is_same": self.is_same}


def reproduce(wanted: RegistryConfig, market: MarketFolder) -> Reproduction:
    """Train one version again, in a temporary folder.

    Args:
        wanted: Which version, where the bars are, and where the store is.
        market: Its market.

    Raises:
        ModelNotFoundError: There is no such version.
        InvalidArtifactError: It is broken.
        VersionRefusedError: It began with the weights of a pool, or was trained together with
            markets that it does not describe or whose bars are not here, or on a machine that
            can more than this one.
        ConfigError: Its settings are not those of this percoin.
        DataError: There are no bars.
    """
    original = _load(market, wanted.version)
    manifest = original.manifest
    here: dict[str, object] = {
        "workers": _threads(manifest),
        "logger": None,
        "export": {"onnx": False},
    }
    record = _record(market, original)
    together: Mapping[str, PooledMarket] = {}
    if manifest.pool is not None:
        together = _pool_of(manifest, manifest.pool)
    elif manifest.config.get("fleet") is True:
        together = _fleet_of(manifest, record)
        here["fleet"] = True
    if together:
        here["symbol"] = ",".join(together)
    settings = settings_of(manifest, **here)
    if settings.leaves_precision_open:
        settings = with_precision(settings, _precision(manifest))
    _check_machine(settings, manifest)
    bars = _bars(wanted, settings, manifest)
    compared: tuple[Compared, ...] = ()
    if bars.sha256() == manifest.bars.sha256:
        others = _bars_of_others(wanted, settings, manifest, together)
        others += _references(wanted, settings, manifest, bars, [bars, *others])
        compared = tuple(_train_and_compare(market, original, record, settings, [bars, *others]))
    return Reproduction(
        market.symbol,
        market.timeframe.value,
        manifest.version_id,
        compared,
        # After the training, which sets the number of threads.
        tuple(_changes(manifest, bars, settings)),
    )


def _check_machine(settings: TrainConfig, manifest: Manifest) -> None:
    """Refuse a version that this machine cannot train as it was trained.

    Raises:
        VersionRefusedError: There is no GPU, or the CPU has no bf16.
    """
    if not settings.model.has_network or not (lacks := lacking(settings.trainer)):
        return
    trainer, cpu = settings.trainer, (manifest.machine or {}).get("cpu")
    raise VersionRefusedError(
        manifest.symbol,
        manifest.timeframe,
        f"{manifest.version_id} was trained with trainer.accelerator={trainer.accelerator} "
        f"trainer.precision={trainer.precision}, and {lacks}",
        "reproduce it on a machine like the one that trained it"
        + (f", whose CPU is {cpu}" if cpu else ""),
    )


def _pool_of(manifest: Manifest, pool: PoolRecord) -> dict[str, PooledMarket]:
    """The bars of the markets of the pool, also of those that were only judged, in order.

    Markets that were refused when the pool was made change nothing, and are left out.

    Raises:
        VersionRefusedError: The version began with the weights of a pool.
        ConfigError: Its settings name other markets.
    """
    if pool.started_from is not None:
        raise VersionRefusedError(
            manifest.symbol,
            manifest.timeframe,
            f"{manifest.version_id} started from the weights of {pool.started_from}, and "
            "reproduce starts from none",
            "train it again with init=pooled",
        )
    named = pool_of(manifest)
    return {symbol: pool.markets[symbol] for symbol in named if symbol in pool.markets}


def _fleet_of(manifest: Manifest, record: Mapping[str, object]) -> dict[str, PooledMarket]:
    """The bars of the markets that the version was trained with, its own among them, in order.

    Dropout is drawn for a whole fleet at once, so all of it is trained again. On a CPU with as
    many threads that gives the same bits; a GPU adds some sums in another order each time.

    Raises:
        VersionRefusedError: The version does not say which ones they were.
    """
    section = record.get(FLEET_SECTION)
    try:
        if not isinstance(section, dict) or manifest.symbol not in section:
            raise ValueError("no such section")
        return {
            check_symbol(symbol): json_codec.decode(PooledMarket, entry)
            for symbol, entry in section.items()
        }
    except (ValueError, ConfigError) as error:
        raise VersionRefusedError(
            manifest.symbol,
            manifest.timeframe,
            f"{manifest.version_id} was trained in a fleet, whose dropout is drawn together, and "
            "does not name the other markets",
            "train the fleet again, or this market alone; either can be reproduced",
        ) from error


def _bars_of_others(
    wanted: RegistryConfig,
    settings: TrainConfig,
    manifest: Manifest,
    together: Mapping[str, PooledMarket],
) -> list[Bars]:
    """Those of the other markets of its fleet or pool, as they were.

    Raises:
        VersionRefusedError: Some are not here; names them.
    """
    others = [symbol for symbol in together if symbol != manifest.symbol]

    def load(symbol: str) -> Bars:
        return _load_bars(wanted, settings, symbol, together[symbol].first_open_time)

    found = {symbol: bars_as_known(together[symbol], symbol, load) for symbol in others}
    if strange := [symbol for symbol, bars in found.items() if bars is None]:
        raise VersionRefusedError(
            manifest.symbol,
            manifest.timeframe,
            f"{manifest.version_id} was trained together with {', '.join(strange)}, whose bars "
            "have changed or are missing",
            "bring back those bars, or train the market alone, which can be reproduced",
        )
    return [bars for bars in found.values() if bars is not None]


def _references(
    wanted: RegistryConfig,
    settings: TrainConfig,
    manifest: Manifest,
    bars: Bars,
    known: Sequence[Bars],
) -> list[Bars]:
    """Those of the markets that the features compare with, unless they are trained on too.

    Raises:
        VersionRefusedError: Some are not here, or have changed.
    """
    here = {each.symbol: each for each in known}

    def load(symbol: str) -> Bars:
        if symbol not in here:
            first = manifest.bars.first_open_time
            here[symbol] = _load_bars(wanted, settings, symbol, first)
        return here[symbol]

    try:
        with_compared(manifest, bars, load)
    except DataError as error:
        action = "bring back those bars"
        raise VersionRefusedError(
            manifest.symbol, manifest.timeframe, error.found, action
        ) from error
    return list(here.values())[len(known) :]


def _load(market: MarketFolder, start: str | None) -> Artifact:
    name = served_folder(market).name if start is None else find_version(market, start)
    return load_version(market, name)


def _threads(manifest: Manifest) -> int | None:
    noted = (manifest.machine or {}).get("threads", "")
    if re.fullmatch("[0-9]{1,3}", noted) and 1 <= int(noted) <= _MOST_THREADS:
        return int(noted)
    workers = manifest.config.get("workers")
    return workers if type(workers) is int and 1 <= workers <= _MOST_THREADS else None


def _precision(manifest: Manifest) -> str:
    """The precision that ``trainer.precision=auto`` came to."""
    choices = manifest.config.get("choices")
    return str(choices.get("precision")) if isinstance(choices, dict) else ""


def _bars(wanted: RegistryConfig, settings: TrainConfig, manifest: Manifest) -> Bars:
    """What the source has of the days that the model knew."""
    first = manifest.bars.first_open_time
    return bars_of(manifest, _load_bars(wanted, settings, manifest.symbol, first))


def _load_bars(wanted: RegistryConfig, settings: TrainConfig, symbol: str, first: str) -> Bars:
    store = BarStore(Path(wanted.data_dir) / "bars")
    age = datetime.now(UTC) - datetime.fromisoformat(first)
    timeframe = settings.tf.timeframe
    return bar_source(wanted.source, store, int(age / timeframe.timedelta) + 1).load(
        symbol, timeframe
    )


def _train_and_compare(
    market: MarketFolder,
    original: Artifact,
    record: Mapping[str, object],
    settings: TrainConfig,
    markets: Sequence[Bars],
) -> Iterator[Compared]:
    with tempfile.TemporaryDirectory(prefix="percoin-reproduce-") as name:
        folder = Path(name)
        settings.models_dir = str(folder / "models")
        run = folder / "run"
        run.mkdir()
        check_machine(settings)
        kinds = original.manifest.label_rule["kind"], original.manifest.model.kind
        choices = dict(zip(("labels", "model"), map(str, kinds), strict=True))
        by_symbol = {bars.symbol: bars for bars in markets}
        recipe = prepare(settings, lambda own: by_symbol[own.symbol])
        if isinstance(recipe, OneMarket) and settings.test_from is None:
            n_rows = original.manifest.dataset_info.test_samples
            recipe = replace(recipe, folds=with_newest_test_rows(recipe.folds, n_rows))
        train(settings, recipe, RunContext(run, choices), only=[market.symbol]).check()
        made = MarketFolder(folder / "models", market.symbol, market.timeframe)
        again = load_version(made, version_ids(made)[-1])
        if original.manifest.has_network:
            yield _compare_weights("weights", original.state_dict, again.state_dict)
            if original.manifest.refit is not None:
                yield _compare_weights("weights of twin", original.judged, again.judged)
        for part in ("refit", *_NUMBERS):
            then, now = (_numbers(entry.manifest, part) for entry in (original, again))
            if then is None and now is None:
                continue
            yield Compared(part, then == now, "all numbers" if then == now else f"{then} -> {now}")
        for name in original.manifest.tree_files:
            yield _compare_trees(name, original, again)
        yield from _compare_records(record, _record(made, again))


def _compare_trees(name: str, then: Artifact, now: Artifact) -> Compared:
    is_same = now.manifest.files.get(name) == then.manifest.files[name]
    return Compared(name, is_same, "all numbers" if is_same else "other trees")


def _numbers(manifest: Manifest, part: str) -> object:
    """A part of the manifest; of a refit without the hash of a file, which depends on torch."""
    found = getattr(manifest, part)
    if not isinstance(found, Refit):
        return found
    hashes = {name: text for name, text in found.twin_sha256.items() if name != NETWORK}
    return replace(found, twin_sha256=hashes)


def _compare_weights(part: str, then: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> Compared:
    if {name: tensor.shape for name, tensor in then.items()} != {
        name: tensor.shape for name, tensor in now.items()
    }:
        return Compared(part, False, "of another network")
    differing = [name for name in then if not _same_bits(then[name], now[name])]
    if not differing:
        n_numbers = sum(tensor.numel() for tensor in then.values())
        return Compared(part, True, f"{len(then)} tensors, {n_numbers:,} numbers")
    apart = max(float((then[n].double() - now[n].double()).abs().max()) for n in differing)
    detail = f"{len(differing)} of {len(then)} tensors, by up to {apart:.2g}"
    return Compared(part, False, detail)


def _same_bits(then: Tensor, now: Tensor) -> bool:
    return then.dtype == now.dtype and bool(
        torch.equal(then.flatten().view(torch.uint8), now.flatten().view(torch.uint8))
    )


def _record(market: MarketFolder, artifact: Artifact) -> Mapping[str, object]:
    return read_metrics(market, artifact.folder, artifact.manifest)


def _compare_records(then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[Compared]:
    for section in ("training_history", "test_metrics"):
        old, new = then.get(section), now.get(section)
        old, new = (entry if isinstance(entry, dict) else {} for entry in (old, new))
        names = [*old, *(name for name in new if name not in old)]
        differing = [name for name in names if old.get(name) != new.get(name)]
        detail = f"{len(names)} entries"
        if differing:
            pairs = [f"{n} {old.get(n, _NOTHING)} -> {new.get(n, _NOTHING)}" for n in differing]
            detail = "; ".join(pairs)
        yield Compared(section.replace("_", " "), not differing, detail)


def _changes(manifest: Manifest, bars: Bars, settings: TrainConfig) -> Iterator[Circumstance]:
    if bars.sha256() != manifest.bars.sha256:
        then, now = (
            f"{n_bars} from {origin} (sha256 {sha256[:12]})"
            for n_bars, origin, sha256 in (
                (manifest.bars.n_bars, manifest.bars.origin, manifest.bars.sha256),
                (len(bars), bars.origin, bars.sha256()),
            )
        )
        yield Circumstance("bars", then, now)
    if manifest.code_version != code_version():
        yield Circumstance("code", manifest.code_version, code_version())
    own = {} if manifest.model.source is None else {"model": manifest.model.source}
    recorded = {**own, **(manifest.sources or {})}
    found = sources_of(settings) if recorded else {}
    yield from _differences("own code", _named(recorded), _named(found))
    yield from _differences("library", manifest.libraries, library_versions())
    if manifest.machine is None:
        yield Circumstance("machine", "not recorded", ", ".join(machine_facts().values()))
    else:
        yield from _differences("machine", manifest.machine, machine_facts())


def _named(sources: Mapping[str, PluginSource]) -> dict[str, str]:
    return {group: f"{each.name} (sha256 {each.sha256:.12})" for group, each in sources.items()}


def _differences(
    kind: str, then: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[Circumstance]:
    for name in dict.fromkeys([*then, *now]):
        old, new = then.get(name, _NOTHING), now.get(name, _NOTHING)
        if old != new:
            yield Circumstance(f"{kind} {name}", old, new)
