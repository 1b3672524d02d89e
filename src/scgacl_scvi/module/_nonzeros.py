"""The non-zeros of a batch of counts: nine entries in ten are zeros, on which nothing expensive should be spent."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor


def positions(x: Tensor) -> Tensor:
    """Where a cells x genes array (numbers or bool) is not 0, as positions in one row after the other."""
    version, known = getattr(x, "nonzero_positions", (None, None))
    if known is not None and x._version == version:
        return known
    if x.device.type == "cpu":  # torch's own search takes five times as long, and numpy's of numbers as much
        values = x.detach().numpy()
        return torch.from_numpy(np.flatnonzero(values if values.dtype == bool else values != 0))
    return torch.nonzero(x.reshape(-1)).squeeze(1)


def with_positions(x: Tensor, found: Tensor) -> Tensor:
    """The same tensor, of which :func:`positions` are known until it is changed in place.

    What is computed from it does not inherit them.
    """
    if not x.is_inference():  # such a tensor does not count its changes
        x.nonzero_positions = x._version, found
    return x


class Nonzeros:
    """Positions of the non-zeros of a batch, by which dense arrays of the same shape are read and filled.

    ``index`` (one row after the other), ``row`` (cell), ``column`` (gene) and ``values`` have one entry for each.

    Parameters
    ----------
    x
        Cells x genes.
    visible
        Only those at which this array of the same shape is not 0; None: all.
    """

    def __init__(self, x: Tensor, visible: Tensor | None = None):
        self.shape = x.shape
        self.index = positions(x)
        if visible is not None:
            self.index = self.index.index_select(0, positions(self.of(visible)))
        self.values = self.of(x)
        self.row = torch.div(self.index, self.shape[1], rounding_mode="floor")
        self.column = self.index - self.row * self.shape[1]

    @cached_property
    def ends(self) -> Tensor:
        """First non-zero of each cell, and their number."""
        return torch.searchsorted(self.row, torch.arange(self.shape[0] + 1, device=self.row.device))

    def of(self, dense: Tensor) -> Tensor:
        """Entries of another array of the same shape (cells x genes) at the non-zeros."""
        return dense.reshape(-1).index_select(0, self.index)

    def dense(self, values: Tensor) -> Tensor:
        """Array with given values at the non-zeros, else 0."""
        filled = torch.zeros(self.shape, dtype=values.dtype, device=values.device)
        filled.view(-1).scatter_(0, self.index, values)
        return filled

    def add_to(self, dense: Tensor, values: Tensor) -> None:
        """Add values to an array at the non-zeros, in place."""
        dense.view(-1).index_add_(0, self.index, values)

    def sum_by_row(self, values: Tensor) -> Tensor:
        """Sum of values over each cell."""
        return torch.segment_reduce(values, "sum", offsets=self.ends)

    def sum_by_column(self, values: Tensor) -> Tensor:
        """Sum of values over each gene."""
        return torch.zeros(self.shape[1], dtype=values.dtype, device=values.device).index_add_(0, self.column, values)
