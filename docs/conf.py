"""Sphinx: the Markdown pages of the repository as a site (``make docs``)."""

import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

import percoin  # noqa: E402
from percoin.cli.help import help_text  # noqa: E402

project = "percoin"
author = "percoin"
version = release = percoin.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "benchmarks/*.md", "stress/*.md"]
html_theme = "furo"
html_title = "percoin"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# Types of other libraries and private ones have no page here.
nitpicky = False
autodoc_typehints = "description"
# np.object_ would be a link of reStructuredText.
napoleon_attr_annotations = False
autodoc_member_order = "bysource"


class CommandHelp(Directive):
    """What ``--help`` of a command prints: ``{command-help} train``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The help as a block of text."""
        text = help_text(self.arguments[0])
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Any) -> None:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
