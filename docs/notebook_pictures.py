"""Run examples/first_model.ipynb and write the pictures of NOTEBOOK.md beside it.

python docs/notebook_pictures.py    a minute; figures may differ from machine to machine
"""

import base64
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
# By the words that draw them, in the last line of a cell.
PICTURES = {
    "plot.skills(": "notebook_skills.png",
    "plot.reliability(": "notebook_reliability.png",
    "plot.equity(": "notebook_equity.png",
    "plot.candles(bars.slice(-120), answers)": "notebook_signals.png",
}


def main() -> None:
    """Write each picture that a cell has drawn."""
    notebook = nbformat.read(HERE.parent / "examples" / "first_model.ipynb", 4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        for words, name in PICTURES.items():
            for output in cell.get("outputs", ()) if words in cell.source else ():
                if picture := output.get("data", {}).get("image/png"):
                    (HERE / name).write_bytes(base64.b64decode(picture))
                    print(HERE / name)


if __name__ == "__main__":
    main()
