"""Sphinx configuration. A build needs no network: nothing is fetched, no notebook is executed."""

import os
import shutil
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.ext.napoleon.docstring import NumpyDocstring

HERE = Path(__file__).parent

project = "scgacl-scvi"
author = "The scgacl-scvi developers"
copyright = f"2026, {author}"
version = release = installed_version("scgacl-scvi")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "jupyter_execute", "Thumbs.db", ".DS_Store"]
suppress_warnings: list[str] = []

# --- pages ---------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_theme_options = {"navigation_with_keys": True}

# --- API -----------------------------------------------------------------------------------------------------------

autosummary_generate = True
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
add_module_names = False
napoleon_google_docstring = False
napoleon_use_param = False  # keeps "n_cells, n_genes" together
napoleon_use_ivar = True
napoleon_use_rtype = False

if os.environ.get("DOCS_INTERSPHINX"):  # links into other projects' pages, where there is a network
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        name: (f"https://{host}/", None)
        for name, host in {
            "anndata": "anndata.readthedocs.io/en/stable",
            "numpy": "numpy.org/doc/stable",
            "pandas": "pandas.pydata.org/docs",
            "python": "docs.python.org/3",
            "scanpy": "scanpy.readthedocs.io/en/stable",
            "scvi-tools": "docs.scvi-tools.org/en/stable",
            "torch": "docs.pytorch.org/docs/stable",
        }.items()
    }


def _returns_as_text(self, section):
    """Take a Returns section as prose: the types are in the signature, so its first line is not one."""
    lines = self._dedent(self._consume_to_next_section())
    return [":returns:", *self._indent(lines, 4), ""]


NumpyDocstring._parse_returns_section = _returns_as_text


def _skip_foreign(app, what, name, obj, skip, options):
    """Leave out what a class inherits from other packages: they document it, and ``api.md`` lists it."""
    function = getattr(obj, "fget", None) or getattr(obj, "__func__", obj)
    home = getattr(function, "__module__", None)
    foreign = what == "class" and callable(function) and home and home.partition(".")[0] != "scgacl_scvi"
    return True if foreign else None


# --- notebooks -----------------------------------------------------------------------------------------------------


def _copy_notebooks() -> None:
    """Bring the executed notebooks of the repository under ``docs/generated``; without any, leave their page out."""
    target = HERE / "generated" / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    notebooks = sorted((HERE.parent / "notebooks").glob("*.ipynb"))
    for notebook in notebooks:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy2(notebook, target)
    if not notebooks:
        exclude_patterns.append("notebooks.*")
        suppress_warnings.append("toc.excluded")


_copy_notebooks()


def setup(app):
    """Connect the hooks above."""
    app.connect("autodoc-skip-member", _skip_foreign)
