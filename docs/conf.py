"""Sphinx configuration: `sphinx-build -W docs build/docs` makes the site."""

import os
import sys
from pathlib import Path

# Before torch is imported: the small networks of the gallery are fastest on one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
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
    "sphinx_gallery.gen_gallery",
]
sphinx_gallery_conf = {  # examples run when the site is built, and again once changed
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "ignore_pattern": "springs",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
}
exclude_patterns = ["reference/generated/README.md", "gallery/*.ipynb"]
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
