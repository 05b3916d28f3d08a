"""The documentation as a site: ``make docs``."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from percoin.config import SCHEMAS

ROOT = Path(__file__).parents[1]
INDEX = ROOT / "docs" / "index.md"


def test_every_page_is_in_the_table_of_contents():
    listed = set(re.findall(r"^/?([\w/]+)$", INDEX.read_text(), flags=re.MULTILINE))
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}

    assert pages - listed == set()


def test_the_settings_of_every_command_have_a_chapter():
    chapters = re.findall(
        r"^```{command-help} (\w+)$", (ROOT / "docs/SETTINGS.md").read_text(), re.M
    )

    assert set(chapters) == set(SCHEMAS)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    built = subprocess.run(
        [
            sys.executable,
            *["-m", "sphinx", "-c", "docs", "-b", "html", "-W", "--keep-going", "-q", "."],
            tmp_path,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert built.returncode == 0, built.stderr
    assert "history_days" in (tmp_path / "docs" / "SETTINGS.html").read_text()
