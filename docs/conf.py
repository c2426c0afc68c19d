"""Settings of `make docs`. Nothing is fetched: neither inventories of other projects nor fonts nor scripts."""

import fastnn

project = "fastnn"
author = "the fastnn developers"
project_copyright = author
release = version = fastnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

default_role = "py:obj"  # `Trainer.fit` in a docstring is a link where such a name exists
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "none"  # docstrings say it in words
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]


PROJECT = {"](ARCHITECTURE.md)": "](architecture.md)", "](CONTRIBUTING.md)": "](contributing.md)"}


def _links_between_included_pages(app, path, parent, content):
    """The pages of the top folder are included by project/*.md, where they have other names."""
    for link, here in PROJECT.items():
        content[0] = content[0].replace(link, here)


def setup(app):
    app.connect("include-read", _links_between_included_pages)


html_theme = "furo"
html_title = f"fastnn {release}"
# Ninety columns of code beside the navigation.
html_theme_options = {"light_css_variables": {"code-font-size": "0.77em"}}
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
