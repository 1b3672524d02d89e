"""Delimited text: separator, header and names, found by looking at the first lines."""

import csv
import gzip
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

ENCODING = "utf-8-sig"  # UTF-8, with or without a byte-order mark
SEPARATORS = ",\t;"
SUFFIXES = (".csv", ".tsv", ".txt")


def is_text_table(path: Path) -> bool:
    """Whether the name is that of a delimited text file, compressed or not."""
    return path.name.lower().removesuffix(".gz").endswith(SUFFIXES)


def open_text(path: Path) -> TextIO:
    """Open a text file, unpacking ``.gz``."""
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding=ENCODING, newline="")
    return path.open(encoding=ENCODING, newline="")


def separator(path: Path) -> str:
    """Return the character that separates fields: that which the first line holds most of, else a comma."""
    with open_text(path) as file:
        line = file.readline()
    return max(SEPARATORS, key=line.count)


def read_rows(path: Path, sep: str, limit: int | None = None) -> Iterator[list[str]]:
    """Rows of fields, without empty lines."""
    with open_text(path) as file:
        rows = (row for row in csv.reader(file, delimiter=sep) if row)
        yield from itertools.islice(rows, limit)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all names are numbers: then a line or column of names is missing, or holds mere row numbers."""
    try:
        [float(name) for name in names]
    except ValueError:
        return False
    return True


def are_numbered(names: Sequence[str]) -> bool:
    """Whether names merely count from 0 or 1."""
    return any(all(name == str(i) for i, name in enumerate(names, start)) for start in (0, 1))


def some(names: Sequence[str], n: int = 3) -> str:
    """Show a few names in a message."""
    return ", ".join(repr(str(name)) for name in names[:n]) + (", ..." if len(names) > n else "")


def counted(n: int, noun: str) -> str:
    """Write a number and its noun in the singular or plural."""
    return f"{int(n):,} {noun}{'' if n == 1 else 's'}"
