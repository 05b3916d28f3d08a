"""Code of the user's own: found by name, only where it is allowed, and known by its hash."""

import hashlib
import sys

import pytest

from percoin.cli import compose_config
from percoin.config import PredictConfig, typed
from percoin.errors import ConfigError
from percoin.plugins import allow_plugins, allowed_plugins, resolve, resolve_same

SOURCE = (
    "class Rule:\n    def make(self):\n        return 7\n\ndef feature(bars):\n    return bars\n"
)


@pytest.fixture(autouse=True)
def _nothing_allowed():
    allow_plugins([])
    yield
    allow_plugins([])


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "my_rules.py"
    path.write_text(SOURCE)
    return path


def test_a_name_in_an_allowed_file_gives_the_object_and_which_code_it_is(own_file):
    allow_plugins([str(own_file)])
    found = resolve("my_rules:Rule.make")

    assert found.value(None) == 7
    assert found.source.module == "my_rules"
    assert found.source.qualname == "Rule.make"
    assert found.source.sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert resolve(f"{own_file}:Rule.make") == found
    assert resolve_same(found.source) is found.value
    assert allowed_plugins() == (str(own_file),)


def test_code_that_is_not_allowed_is_not_run_and_the_message_says_what_to_allow(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "my_mark.py").write_text(f"open({str(mark)!r}, 'w')\ndef f(): ...\n")
    for name in ("my_mark:f", f"{tmp_path}/my_mark.py:f"):
        with pytest.raises(ConfigError, match=r"which plugins=\[\] does not allow; add its file"):
            resolve(name)

    assert not mark.exists()
    assert "my_mark" not in sys.modules


@pytest.mark.parametrize(
    "name",
    ["torch.load", "torch", "load", "Rule.layer", "Rule.__class__", "__loader__.load_module"],
)
def test_what_an_allowed_file_imports_is_not_its_code(tmp_path, name):
    path = tmp_path / "my_net.py"
    path.write_text(
        "import torch\nfrom torch import load\n\nclass Rule:\n    layer = torch.nn.Linear\n"
    )
    allow_plugins([str(path)])

    with pytest.raises(ConfigError, match=r"is not defined in my_net.*; name it where"):
        resolve(f"my_net:{name}")


def test_what_was_allowed_before_is_forgotten(own_file):
    allow_plugins([str(own_file)])
    resolve("my_rules:feature")
    allow_plugins([])

    with pytest.raises(ConfigError, match="does not allow"):
        resolve("my_rules:feature")
    assert "my_rules" not in sys.modules


def test_a_module_allows_what_lies_below_it_and_nothing_with_a_similar_name(tmp_path, monkeypatch):
    package = tmp_path / "ownpackage"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "inner.py").write_text("x = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    allow_plugins(["ownpackage"])

    assert resolve("ownpackage.inner:x").value == 3
    assert resolve("ownpackage.inner:x").source.module == "ownpackage.inner"
    with pytest.raises(ConfigError, match="does not allow"):
        resolve("ownpackages:x")


def test_an_edited_file_is_loaded_again_and_refused_as_the_code_of_a_model(own_file):
    allow_plugins([str(own_file)])
    before = resolve("my_rules:feature").source
    own_file.write_text(SOURCE + "\n# another\n")

    assert resolve("my_rules:feature").source == before  # what this process runs
    allow_plugins([str(own_file)])
    with pytest.raises(ConfigError, match="my_rules:feature has changed since the training"):
        resolve_same(before)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("my_rules:feture", "my_rules has no feture; did you mean feature"),
        ("my_rules", "names no code: write MODULE:NAME"),
        ("my_rules:", "names no code: write MODULE:NAME"),
        ("my_rules:Rule.mak", "my_rules has no Rule.mak; did you mean make"),
    ],
)
def test_a_name_that_leads_nowhere_is_one_line(own_file, name, found):
    allow_plugins([str(own_file)])
    with pytest.raises(ConfigError, match=found) as error:
        resolve(name)
    assert "\n" not in str(error.value)


def test_code_that_does_not_run_is_one_line(tmp_path):
    path = tmp_path / "my_broken.py"
    path.write_text("1 / 0\n")
    allow_plugins([str(path)])

    with pytest.raises(ConfigError, match="cannot be imported: ZeroDivisionError: division"):
        resolve("my_broken:x")
    assert "my_broken" not in sys.modules


@pytest.mark.parametrize(
    ("file", "found"),
    [
        ("my-rules.py", "rename it, as my-rules cannot be a module"),
        ("numpy.py", "rename it, as a module numpy exists already"),
        ("turtle.py", "rename it, as a module turtle exists already"),
    ],
)
def test_a_file_whose_name_can_be_no_module_of_its_own_is_refused(tmp_path, file, found):
    (tmp_path / file).touch()
    with pytest.raises(ConfigError, match=found):
        allow_plugins([str(tmp_path / file)])


def test_entries_that_allow_nothing_are_refused(tmp_path, own_file):
    other = tmp_path / "other"
    other.mkdir()
    (other / "my_rules.py").touch()
    with pytest.raises(ConfigError, match="there is no such file"):
        allow_plugins([str(tmp_path / "no_file.py")])
    with pytest.raises(ConfigError, match="two entries named my_rules"):
        allow_plugins([str(own_file), str(other / "my_rules.py")])
    with pytest.raises(ConfigError, match="neither a file"):
        allow_plugins(["../my_rules"])


def test_a_file_of_the_same_name_elsewhere_takes_its_place(tmp_path, own_file):
    other = tmp_path / "other"
    other.mkdir()
    (other / "my_rules.py").write_text("feature = 1\n")
    allow_plugins([str(own_file)])
    resolve("my_rules:feature")
    allow_plugins([str(other / "my_rules.py")])

    assert resolve("my_rules:feature").value == 1


def test_the_setting_of_a_command_allows_code_and_allows_none_by_default(own_file, monkeypatch):
    monkeypatch.chdir(own_file.parent)
    words = ["symbol=BTCUSDT", "plugins=[my_rules.py]"]
    typed(compose_config("predict", words), PredictConfig)
    monkeypatch.chdir("/")
    assert resolve("my_rules:feature")
    assert allowed_plugins() == (str(own_file),)

    typed(compose_config("predict", words[:1]), PredictConfig)
    assert allowed_plugins() == ()
