"""``examples/first_model.ipynb`` runs from top to bottom, and draws its pictures."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_model.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = nbformat.read(NOTEBOOK, 4).cells
    assert [cell.id for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


# The kernel's own start says it to the one who starts it.
@pytest.mark.filterwarnings("ignore:.*TCP without encryption")
@pytest.mark.slow
def test_the_notebook_runs_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, 4)
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=500, resources=folder).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    told = "".join(output.text for output in outputs if output.output_type == "stream")
    assert len(pictures) == 5
    assert "skill over the train prior" in told
    assert any("confidence" in output.get("data", {}).get("text/html", "") for output in outputs)
    assert (tmp_path / "models/per_coin/BTCUSDT/1h/meta.json").is_file()
