"""A table of counts with names on both sides."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from ._text import ENCODING, are_numbered, are_numbers, read_rows, separator, some

_CHUNK_ENTRIES = 2**24


@dataclass(frozen=True)
class Table:
    """Counts as they stand in the file."""

    rows: list[str]
    columns: list[str]
    values: sparse.csr_matrix  # rows x columns


def read_table(path: Path) -> Table:
    """Read a delimited table of counts whose first line and first column hold names.

    Parameters
    ----------
    path
        Text file; the separator (comma, tab, semicolon) is found by looking, ``.gz`` is unpacked. The header may lack
        the corner field, as R writes it. It is read in pieces, so that memory holds the non-zero counts only.

    Raises
    ------
    ValueError
        If names are missing, or something between them is no number.
    """
    sep = separator(path)
    head = list(read_rows(path, sep, 2))
    if len(head) < 2 or len(head[1]) < 2:
        raise ValueError(
            f"{path} is no table of counts: it needs a line of names, then lines of a name and counts, separated by "
            "commas or tabs."
        )
    header, width = head[0], len(head[1])
    if len(header) not in (width, width - 1):
        raise ValueError(f"{path}: the header has {len(header)} fields, the next line {width}; they should be as many.")
    columns = header[1:] if len(header) == width else header
    if are_numbers(columns) and not are_numbered(columns):
        raise ValueError(f"{path}: the first line holds numbers ({some(columns)}), not names; add a line of names.")
    # Without a header for pandas: it would rename repeated names, and parse a first column of names as numbers.
    chunks = pd.read_csv(
        path,
        sep=sep,
        header=None,
        skiprows=1,
        index_col=False,
        converters={0: "={}".format},  # pandas 3 takes a name NA for a missing value, but no name =NA
        encoding=ENCODING,
        chunksize=max(1, _CHUNK_ENTRIES // width),
        low_memory=False,
    )
    rows, blocks = [], []
    with chunks:
        for chunk in chunks:
            names = [name[1:] for name in chunk.iloc[:, 0]]
            rows += names
            blocks.append(_numbers(path, chunk.iloc[:, 1:], names, columns))
    if are_numbers(rows) and not are_numbered(rows):
        raise ValueError(f"{path}: the first column holds numbers ({some(rows)}), not names; add a column of names.")
    return Table(rows, columns, sparse.vstack(blocks, format="csr"))


def _numbers(path: Path, block: pd.DataFrame, rows: list[str], columns: list[str]) -> sparse.csr_matrix:
    """Return the counts of some rows; raise at the first field that is no number."""
    for j, dtype in enumerate(block.dtypes):
        if dtype.kind not in "iufb":
            text = block.iloc[:, j]
            i = int(np.flatnonzero(pd.to_numeric(text, errors="coerce").isna())[0])
            raise ValueError(
                f"{path}: row {rows[i]!r}, column {columns[j]!r} holds {str(text.iloc[i])!r}, not a count; besides the "
                "first line and the first column of names the table may hold counts only."
            )
    values = block.to_numpy(dtype=np.float64)
    missing = np.argwhere(np.isnan(values))
    if len(missing):
        i, j = missing[0]
        raise ValueError(
            f"{path}: row {rows[i]!r}, column {columns[j]!r} is empty; write 0 for a count that was not seen."
        )
    return sparse.csr_matrix(values)
