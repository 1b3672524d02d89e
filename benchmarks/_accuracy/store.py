"""Results as a tidy table on disk: one line a metric, appended fit by fit, never changed."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import pandas as pd

COLUMNS = [
    *("task", "set", "fingerprint", "n_cells", "n_genes", "method", "version", "seed"),
    *("metric", "value", "note", "threads", "date"),
]

FAILED = "failed"
"""Metric of a line that holds a reason instead of a value."""


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add the lines of one fit in a single write, so that an interrupted run leaves whole fits only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not path.exists() or path.stat().st_size == 0:
        writer.writeheader()
    writer.writerows(rows)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, text.getvalue().encode())
    finally:
        os.close(handle)


def read(path: Path) -> pd.DataFrame:
    """All lines, oldest first."""
    if not path.exists():
        return pd.DataFrame(columns=COLUMNS)
    types = dict.fromkeys(("task", "set", "fingerprint", "method", "version", "metric", "note", "date"), str)
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values={"value": ["nan", ""]})


def done(table: pd.DataFrame) -> set[tuple]:
    """Fits that need no repetition: same task, data, method, version and seed; a reason to fail counts, too."""
    keys = ["task", "set", "fingerprint", "method", "version", "seed"]
    return set(table[keys].drop_duplicates().itertuples(index=False, name=None))


def current(table: pd.DataFrame) -> pd.DataFrame:
    """Lines of the data and versions that were run last; older ones stay in the file and out of the report."""
    if table.empty:
        return table
    last_data = table.groupby(["task", "set", "seed"])["fingerprint"].transform("last")
    table = table[table["fingerprint"] == last_data]
    # That a method is not there today does not make its figures of yesterday wrong, nor does a failure since repaired.
    worked = table[table["metric"] != FAILED].groupby(["task", "set", "method"]).size()
    has_figures = pd.MultiIndex.from_frame(table[["task", "set", "method"]]).isin(worked.index)
    table = table[(table["metric"] != FAILED) | ~has_figures]
    last_version = table.groupby(["task", "set", "method"])["version"].transform("last")
    table = table[table["version"] == last_version]
    return table.drop_duplicates(["task", "set", "method", "seed", "metric"], keep="last")
