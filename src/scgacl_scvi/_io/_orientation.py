"""Are genes the rows or the columns? Never guessed in silence."""

import re
from collections.abc import Sequence
from pathlib import Path

from ._labels import Labels
from ._table import Table
from ._text import are_numbered, some

_GENE = re.compile(r"ENS[A-Z]*G\d{6,}|ERCC-\d+|MT-\w+|mt-\w+|RP[LS]\d+\w*|Rp[ls]\d+\w*|gene[-_ .]?\d+", re.IGNORECASE)
_BARCODE = re.compile(r"(.*[^A-Za-z])?[ACGT]{8,}([-_.]\w+)*")
_CELL = re.compile(r"(cell|barcode|sample|well)[-_ .]?\d+|[SED]RR\d{5,}", re.IGNORECASE)


def genes_axis(table: Table, labels: Labels | None, path: Path) -> tuple[str, str]:
    """Decide where the genes of a table are.

    In this order: cell names of the labels file, or its length, fit one side only; one side is merely numbered (genes
    have names); names of one side look like genes or like cells, and those of the other do not.

    Parameters
    ----------
    table
        The table.
    labels
        Labels of the cells, if given.
    path
        Of the table, for the message.

    Returns
    -------
    axis, reason
        ``"rows"`` or ``"columns"``, and why.

    Raises
    ------
    ValueError
        If nothing decides.
    """
    sides = {"rows": table.rows, "columns": table.columns}
    for test in (_by_labels, _by_numbers, _by_names):
        found = {cells: reason for cells in sides if (reason := test(sides, cells, labels))}
        if len(found) == 1:
            [(cells, reason)] = found.items()
            return _other(cells), reason
    raise ValueError(
        f"{path}: cannot tell whether its {len(table.rows)} rows ({some(table.rows)}) or its {len(table.columns)} "
        f"columns ({some(table.columns)}) are the genes; say `--genes rows` or `--genes columns`."
    )


def _other(side: str) -> str:
    return "columns" if side == "rows" else "rows"


def _by_labels(sides: dict[str, list[str]], cells: str, labels: Labels | None) -> str:
    """Why labels say that ``cells`` is the side of the cells, or nothing."""
    if labels is None:
        return ""
    if labels.named:
        return f"the labels file names the {cells}" if labels.overlap(sides[cells]) else ""
    n = len(sides[cells])
    return f"the labels file has as many labels as there are {cells} ({n})" if labels.fits(n) else ""


def _by_numbers(sides: dict[str, list[str]], cells: str, labels: Labels | None) -> str:
    return f"the {cells} are merely numbered, and genes have names" if are_numbered(sides[cells]) else ""


def _by_names(sides: dict[str, list[str]], cells: str, labels: Labels | None) -> str:
    """Names of one side look like cells or those of the other like genes, and nothing says the opposite."""
    genes = _other(cells)
    if _like_genes(sides[cells]) or _like_cells(sides[genes]):
        return ""
    if cell := _like_cells(sides[cells]):
        return f"names of {cells} look like cells ({cell!r})"
    if gene := _like_genes(sides[genes]):
        return f"names of {genes} look like genes ({gene!r})"
    return ""


def _like_genes(names: Sequence[str]) -> str:
    """Return the first name that only a gene bears, or nothing."""
    return next((name for name in names if _GENE.fullmatch(name)), "")


def _like_cells(names: Sequence[str]) -> str:
    """Return the first name that looks like a cell's, if at least half of them do."""
    like = [name for name in names if _BARCODE.fullmatch(name) or _CELL.fullmatch(name)]
    return like[0] if 2 * len(like) >= len(names) > 0 else ""
