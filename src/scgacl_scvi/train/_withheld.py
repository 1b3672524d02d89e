"""Molecules of validation cells that no phase of training sees."""

from collections.abc import Iterable

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from scgacl_scvi.module._heldout import HELDOUT_FRACTION, hold_out


class Withheld:
    """A share of the molecules (or entries) of some cells, by which the predictions for them are judged.

    Parameters
    ----------
    shape
        Cells and genes of the data.
    blocks
        Numbers of cells in rising order, and their values, cells x genes.
    seed
        Of the draws.
    whole_entries
        Whether entries are withheld, not molecules.
    """

    def __init__(
        self, shape: tuple[int, int], blocks: Iterable[tuple[np.ndarray, Tensor]], seed: int, whole_entries: bool
    ):
        held, cells = [], []
        for number, (rows, x) in enumerate(blocks):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
            held.append(sparse.csr_matrix(hold_out(x, HELDOUT_FRACTION, generator, entries=whole_entries).numpy()))
            cells.append(rows)
        self._matrix = sparse.vstack(held, format="csr")
        self._row = np.full(shape[0], -1)
        self._row[np.concatenate(cells)] = np.arange(self._matrix.shape[0])

    def of(self, cells: np.ndarray) -> Tensor:
        """What is withheld of some cells from which something is, cells x genes."""
        return torch.from_numpy(self._matrix[self._row[cells]].toarray())

    def taken_from(self, x: Tensor, cells: np.ndarray) -> Tensor:
        """The values of any cells without what is withheld of them, in place."""
        some = np.flatnonzero(self._row[cells] >= 0)
        if len(some):
            x[torch.from_numpy(some)] -= self.of(cells[some])
        return x
