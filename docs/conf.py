"""Sphinx configuration: `sphinx-build -W docs build/docs` makes the site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference_pages

import alloop

project = "alloop"
author = "the alloop developers"
copyright = f"2026, {author}"
release = version = alloop.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["reference/generated/README.md"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nitpicky = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_theme = "furo"
html_title = "alloop"
html_static_path: list[str] = []


def setup(_app: object) -> None:
    """Write the reference pages that come from the code, before Sphinx reads them."""
    reference_pages.write(Path(__file__).parent / "reference" / "generated")
