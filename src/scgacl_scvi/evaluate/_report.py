"""One self-contained HTML page of text, tables and figures."""

import base64
import io
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ._page import STYLE
from ._table import table_html

DPI = 160
CSS_DPI = 96  # a figure of 6 inches is shown 576 CSS pixels wide, at any resolution


@dataclass(frozen=True)
class Section:
    """One section of a page. All text is shown as written: HTML in it is escaped."""

    title: str
    """Heading."""
    text: str = ""
    """Paragraphs, separated by blank lines."""
    table: pd.DataFrame | None = None
    """Table; numbers are aligned and rounded for reading, an index is shown unless it is a plain 0, 1, 2, ..."""
    figure: Any = None
    """Matplotlib figure, Axes or array of Axes."""
    caption: str = ""
    """Caption of the figure, or of the table if there is no figure."""


def write_page(path: str | os.PathLike[str], *, title: str, sections: Sequence[Section], summary: str = "") -> Path:
    """Write one HTML file that needs nothing else: style, figures (PNG) and tables are inside.

    The page makes no request to anywhere, follows the reader's light or dark mode, fits a phone and prints. The same
    content gives the same bytes. It is written to a temporary file in the same folder and moved in place, so that a
    failure leaves an existing page as it was.

    Parameters
    ----------
    path
        File to write; an existing file is replaced.
    title
        Title of the page.
    sections
        Sections in reading order.
    summary
        Shown in a box under the title: the verdict, in words.

    Returns
    -------
    The path written.

    Raises
    ------
    ValueError
        If the folder of ``path`` does not exist, ``path`` is a folder, or a section holds something that is no table or
        figure.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import Section, write_page
    >>> write_page("report.html", title="Imputation", sections=[Section("Verdict", "Helps.")])  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"path: {path} is a folder; give a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ValueError(f"path: the folder {path.parent} does not exist; create it first")
    sections = list(sections)
    for section in sections:
        if not isinstance(section, Section):
            raise ValueError(f"sections: expected Section objects, got {type(section).__name__}; wrap it in Section")
    _replace(path, _page(title, summary, sections))
    return path


def _page(title: str, summary: str, sections: list[Section]) -> str:
    lead = f'<div class="summary">{_paragraphs(summary)}</div>' if summary else ""
    entries = "".join(f'<li><a href="#s{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections, 1))
    contents = f'<nav aria-label="Contents"><ol>{entries}</ol></nav>' if len(sections) > 3 else ""
    body = "\n".join(_section(i, section) for i, section in enumerate(sections, 1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>{lead}{contents}</header>
<main>
{body}
</main>
<footer>Made with scgacl-scvi {escape(version("scgacl-scvi"))}</footer>
</body>
</html>
"""


def _section(i: int, section: Section) -> str:
    where = f"sections[{i - 1}] ({section.title!r})"
    parts = [f"<h2>{escape(section.title)}</h2>", _paragraphs(section.text)]
    if section.table is not None:
        if not isinstance(section.table, pd.DataFrame):
            raise ValueError(f"{where}: table is a {type(section.table).__name__}; pass a pandas DataFrame")
        parts.append(table_html(section.table, caption="" if section.figure is not None else section.caption))
    if section.figure is not None:
        caption = f"<figcaption>{escape(section.caption)}</figcaption>" if section.caption else ""
        parts.append(f"<figure>{_image(section.figure, section.caption or section.title, where)}{caption}</figure>")
    return f'<section id="s{i}">{"".join(parts)}</section>'


def _paragraphs(text: str) -> str:
    blocks = (block.strip() for block in text.replace("\r\n", "\n").split("\n\n"))
    return "".join(f"<p>{escape(block)}</p>" for block in blocks if block)


def _image(figure: Any, alt: str, where: str) -> str:
    if hasattr(figure, "flat"):  # an array of Axes
        figure = figure.flat[0]
    if not hasattr(figure, "savefig"):
        figure = getattr(figure, "figure", None)
    if not hasattr(figure, "savefig"):
        raise ValueError(f"{where}: figure cannot be drawn; pass a matplotlib Figure, Axes or array of Axes")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    png = buffer.getvalue()
    # Width and height stand in bytes 16-24 of every PNG; stating them keeps the page from jumping as it loads.
    width, height = (round(int.from_bytes(png[at : at + 4], "big") * CSS_DPI / DPI) for at in (16, 20))
    data = base64.b64encode(png).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
