"""Sphinx settings of the documentation site: `sphinx-build -W -b html docs build/docs`."""

import re

from sphinx.application import Sphinx

import sadp_bench

project = "sadp-bench"
author = "The sadp-bench authors"
release = version = sadp_bench.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["cifar10/*.md", "examples"]
html_theme = "furo"
html_title = "sadp-bench"

myst_heading_anchors = 3
nb_execution_mode = "force"  # so the pages show what the notebook gives now
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # signatures without types fit a line; the docstrings contain shapes and units

LINK_OUT = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def unlink_the_repository(app: Sphinx, name: str, source: list[str]) -> None:
    """Replaces links to files outside `docs/` by their text: the site has no copy of these files."""
    source[0] = LINK_OUT.sub(r"\1", source[0])


def setup(app: Sphinx) -> None:
    """Connects the event handlers."""
    app.connect("source-read", unlink_the_repository)
