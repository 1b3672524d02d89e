"""A file with one label per cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ._text import are_numbered, read_rows, separator, some

MISSING = ("", "NA", "NaN", "nan")


@dataclass(frozen=True)
class Labels:
    """Lines of a labels file: of one field (labels in the cells' order) or two (cell, label); a header may be there.

    Whether the first line is a header is decided against the names and number of the cells.
    """

    path: Path
    lines: list[list[str]]

    @property
    def named(self) -> bool:
        """Whether lines hold a name."""
        return len(self.lines[0]) == 2 and not (
            are_numbered([name for name, _ in self.lines]) or are_numbered([name for name, _ in self.lines[1:]])
        )

    def overlap(self, names: Sequence[str]) -> int:
        """How many of the names have a label."""
        have = {line[0] for line in self.lines}
        return sum(name in have for name in names)

    def fits(self, n: int) -> bool:
        """Whether labels in order would do for ``n`` cells."""
        return len(self.lines) in (n, n + 1)

    def of(self, cells: Sequence[str]) -> tuple[list[str | None], str]:
        """Label of each cell (None where it is empty), and how they were matched.

        Raises
        ------
        ValueError
            If lengths or names do not match.
        """
        if self.named or self.overlap(cells) == len(cells):
            labels, how = self._by_name(cells), "by name"
        else:
            labels, how = self._by_order(cells), "in order"
        return [None if label in MISSING else label for label in labels], how

    def _by_name(self, cells: Sequence[str]) -> list[str]:
        lines = self.lines if self.lines[0][0] in set(cells) else self.lines[1:]
        found = dict(lines)
        if len(found) < len(lines):
            twice = _repeated([name for name, _ in lines])
            raise ValueError(f"{self.path}: {some(twice)} stand there more than once; give each cell one label.")
        if len(set(cells)) < len(cells):
            raise ValueError(
                f"{self.path}: labels go by name, but cell names are not unique ({some(_repeated(cells))}); rename "
                "the cells, or give a single column of labels in the cells' order."
            )
        missing = [cell for cell in cells if cell not in found]
        if missing:
            raise ValueError(
                f"{self.path}: {len(missing)} of {len(cells)} cells have no label ({some(missing)}); its names are "
                f"{some(list(found))}. Add them (an empty label is allowed), or give a single column of labels in the "
                "cells' order."
            )
        return [found[cell] for cell in cells]

    def _by_order(self, cells: Sequence[str]) -> list[str]:
        lines = self.lines[1:] if len(self.lines) == len(cells) + 1 else self.lines
        if len(lines) != len(cells):
            raise ValueError(
                f"{self.path} has {len(lines)} labels, but there are {len(cells)} cells; give one for each, or two "
                "columns (cell, label) with a header."
            )
        return [line[-1] for line in lines]


def read_labels(path: Path) -> Labels:
    """Read a labels file; see :class:`Labels`.

    Raises
    ------
    ValueError
        If it is empty, or has lines of more than two fields.
    """
    lines = [[field.strip() for field in line] for line in read_rows(path, separator(path))]
    if not lines:
        raise ValueError(f"{path} is empty; give one label per cell.")
    widths = {len(line) for line in lines}
    if len(widths) > 1 or widths > {2} or max(widths) > 2:
        raise ValueError(
            f"{path}: lines have {' and '.join(map(str, sorted(widths)))} fields; give two columns (cell, label) with "
            "a header, or one column of labels in the cells' order."
        )
    return Labels(path, lines)


def _repeated(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))
