"""Versions whose hashes are right and whose values are hostile: refused in a line, or shown."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trained_registry import SYMBOL, TIMEFRAME, market, served

from percoin.errors import InvalidArtifactError, PercoinError
from percoin.inference import Predictor
from percoin.registry.catalogue import check_market, read_versions
from percoin.registry.changes import Pruning, prunable, rollback_target
from percoin.registry.command.details import read_details, show_as_text
from percoin.registry.command.overview import list_as_text, read_line
from percoin.registry.contents import read_manifest, read_metrics
from percoin.registry.judged import judged_skill, judged_threshold, train_rows
from percoin.registry.layout import MANIFEST_FILE, METRICS_FILE, MarketFolder
from percoin.registry.manifest import _sealed_id
from percoin.report.board import make_board
from percoin.report.files import write_report
from percoin.report.plain import to_text
from percoin.report.reading import read_models

# Stands in the JSON for a text that json.dumps would not write.
_RAW = "\u2603raw"
DEEP = "[" * 10_000 + "]" * 10_000
NINES = "9" * 5_000
HOSTILE_TEXTS = [
    "\x1b[2J\x1b]0;owned\x07",
    "quiet\n2026-01-01 ERROR forged",
    "\ud800",
    "\u202egnp.exe",
    "x" * 1_000_000,
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "../../../etc/passwd",
    "${oc.env:HOME}",
    "",
]
RAW_JSON = ["NaN", "-Infinity", "1e400", NINES, f"-{NINES}", DEEP, '{"a":' * 900 + "1" + "}" * 900]
HOSTILE = [
    *HOSTILE_TEXTS,
    *(_RAW + text for text in RAW_JSON),
    *(10**30, -(10**30), 2**63, -1, 0, 1.5e308, -1e-320, True, None, [], {}, [[]]),
    *([0] * 100_000, {"\x1b[2J\n": "\x00"}, {"\ud800": 1}, dict.fromkeys(map(str, range(3000)), 1)),
]
ADVERSE_FILES = [
    b"",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"3",
    b"{",
    b'{"a": NaN}',
    DEEP.encode(),
    b"\x00",
]


def places(document, prefix=()):
    """Every place of a document at which a value stands."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list) and value:
            # A list says it all with its first entries.
            nested = value if isinstance(value, dict) else value[:2]
            yield from places(nested, (*prefix, key))


def put(document, place, value) -> None:
    for key in place[:-1]:
        document = document[key]
    document[place[-1]] = value


def as_json(document) -> str:
    text = json.dumps(document, indent=2)
    for raw in RAW_JSON:
        text = text.replace(json.dumps(_RAW + raw), raw)
    return text + "\n"


def vouch(folder: Path, manifest: dict, metrics: bytes) -> str:
    """Write both over the served version, and a name by which every hash is right."""
    where = market(folder)
    before = served_name(folder)
    version = where.version(before)
    (version / METRICS_FILE).write_bytes(metrics)
    files = manifest.get("files")
    if isinstance(files, dict):
        files[METRICS_FILE] = hashlib.sha256(metrics).hexdigest()
    text = as_json(manifest)
    name = before
    if manifest.get("version_id") == before:
        name = _sealed_id(text, before)
        text = text.replace(before, name)
    (version / MANIFEST_FILE).write_bytes(text.encode())
    version.rename(where.version(name))
    where.link.unlink()
    where.link.symlink_to(where.link_target(name))
    return name


def served_name(folder: Path) -> str:
    return market(folder).link.readlink().name


def documents(folder: Path) -> tuple[dict, dict]:
    version = market(folder).version(served_name(folder))
    return tuple(json.loads((version / name).read_text()) for name in (MANIFEST_FILE, METRICS_FILE))


@pytest.fixture(scope="module")
def original(once, tmp_path_factory):
    folder = shutil.copytree(
        once / "models", tmp_path_factory.mktemp("hostile") / "models", symlinks=True
    ).parent
    served(folder)
    add_neighbour(folder)
    return folder


def add_neighbour(folder: Path) -> None:
    """The same model as another market's: what is averaged over markets meets the hostile one."""
    where = MarketFolder(folder / "models", "ETHUSDT", TIMEFRAME)
    version = shutil.copytree(market(folder).link.resolve(), where.version(served_name(folder)))
    path = version / MANIFEST_FILE
    text = path.read_text().replace(f'"symbol": "{SYMBOL}"', '"symbol": "ETHUSDT"')
    name = _sealed_id(text, version.name)
    path.write_text(text.replace(version.name, name))
    version.rename(where.version(name))
    where.link.symlink_to(where.link_target(name))


def look_from_everywhere(folder: Path) -> list[str]:
    """Ask every reader of the registry; return all that they print."""
    where, root = market(folder), folder / "models"
    said = [
        list_as_text([read_line(where)]),
        show_as_text(read_details(where)),
        *(f"{check.subject}: ok" for check in check_market(where) if not check.problem),
    ]
    assert prunable(where, Pruning(keep=0)) == ()
    assert rollback_target(where) is None
    assert len(read_versions(where)) == 1
    models = read_models(root)
    assert (models[-1].symbol, models[-1].problem) == ("ETHUSDT", "")
    board = make_board(models)
    write_report(board, folder / "report")
    said.append(to_text(board))
    said += [path.read_text() for path in (folder / "report").glob("*.md")]
    said += [path.read_text() for path in (folder / "report").glob("*.html")]
    said += [path.read_text() for path in (folder / "report").glob("*.svg")]
    try:
        manifest = Predictor(root).model(SYMBOL, TIMEFRAME).manifest
        judged_skill(root, manifest)
        train_rows(root, manifest)
        judged_threshold(root, manifest)
    except PercoinError as error:
        said.append(str(error)[:1_000])
    return said


def check_printable(texts: list[str]) -> None:
    for text in texts:
        for line in text.split("\n"):
            assert line.isprintable(), line[:200]
            assert not line.startswith("2026-01-01 ERROR forged")


@pytest.mark.slow
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_stands_in_a_manifest_or_record_nobody_is_led_astray(
    original, tmp_path_factory, data
):
    manifest, metrics = documents(original)
    changed = data.draw(st.sampled_from([manifest, metrics]))
    place = data.draw(st.sampled_from(sorted(places(changed), key=str)))
    value = data.draw(st.sampled_from(HOSTILE))
    put(changed, place, value)
    folder = tmp_path_factory.mktemp("one")
    shutil.copytree(original / "models", folder / "models", symlinks=True)
    vouch(folder, manifest, as_json(metrics).encode())
    began = time.monotonic()
    check_printable(look_from_everywhere(folder))
    assert time.monotonic() - began < 20
    shutil.rmtree(folder)


@pytest.mark.parametrize("content", ADVERSE_FILES, ids=range(len(ADVERSE_FILES)))
def test_a_record_that_is_no_json_object_is_an_invalid_artifact_for_everybody(
    original, tmp_path, content
):
    shutil.copytree(original / "models", tmp_path / "models", symlinks=True)
    manifest, _ = documents(tmp_path)
    name = vouch(tmp_path, manifest, content)
    where, root = market(tmp_path), tmp_path / "models"
    sealed = read_manifest(where, where.version(name))
    for read in (judged_threshold, judged_skill, train_rows):
        with pytest.raises(InvalidArtifactError, match=r"BTCUSDT 1h: metrics\.json cannot be read"):
            read(root, sealed)
    with pytest.raises(InvalidArtifactError, match=r"metrics\.json cannot be read"):
        read_metrics(where, where.version(name), sealed)
    assert {check.subject for check in check_market(where) if check.problem} == {name, "served"}
    check_printable(look_from_everywhere(tmp_path))
