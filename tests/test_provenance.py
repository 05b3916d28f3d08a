import shutil
from pathlib import Path

import torch

import percoin
from percoin import provenance


def test_the_code_version_changes_with_any_source_and_with_its_place_alone(tmp_path, monkeypatch):
    def version_of(folder: Path) -> str:
        provenance.code_version.cache_clear()
        monkeypatch.setattr(percoin, "__file__", str(folder / "__init__.py"))
        return provenance.code_version()

    original = version_of(Path(percoin.__file__).parent)
    copy = shutil.copytree(Path(provenance.__file__).parent, tmp_path / "percoin")
    assert version_of(copy) == original
    (copy / "splits.py").rename(copy / "splitting.py")
    renamed = version_of(copy)
    (copy / "windows.py").write_text("pass")
    assert len({original, renamed, version_of(copy)}) == 3
    provenance.code_version.cache_clear()


def test_the_machine_is_described_by_what_changes_the_last_bits():
    facts = provenance.machine_facts()
    assert set(facts) == {"system", "cpu", "vector_instructions", "threads", "python"}
    assert facts["threads"] == str(torch.get_num_threads())
    assert all(facts.values())


def test_each_library_has_its_version():
    assert provenance.library_versions()["torch"] == torch.__version__
