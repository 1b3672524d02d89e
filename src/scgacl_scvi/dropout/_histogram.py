"""How often each distinct value occurs, per gene and label."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

BLOCK_ENTRIES = 1 << 18
"""Non-zeros (dense: entries) that are worked on at once. Bounds the memory; no result depends on it."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """Ragged histogram: pair ``p`` (a gene within a label) owns ``values[indptr[p]:indptr[p + 1]]``.

    The first value of each pair is 0, with weight 0 where the pair has no zero, so no pair is empty. The others are
    distinct and ascend, so that the histogram does not depend on the order of the cells.

    Parameters
    ----------
    values
        Distinct values on the scale of the input, shape (n_entries,).
    weights
        Number of cells with that value, shape (n_entries,).
    indptr
        Where each pair starts, shape (n_pairs + 1,).
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    indptr: NDArray[np.intp]

    @property
    def lengths(self) -> NDArray[np.intp]:
        """Number of distinct values of each pair, zero included, shape (n_pairs,)."""
        return np.diff(self.indptr)

    def total(self, entries: NDArray) -> NDArray:
        """Sum over each pair's entries, (n_entries,) -> (n_pairs,)."""
        if self.indptr.size == 1:  # reduceat refuses an empty list of starts
            return np.zeros(0, dtype=entries.dtype)
        return np.add.reduceat(entries, self.indptr[:-1])

    def spread(self, pairs: NDArray) -> NDArray:
        """Repeat each pair's number for all its entries, (n_pairs,) -> (n_entries,)."""
        return np.repeat(pairs, self.lengths)

    def select(self, keep: NDArray[np.bool_]) -> "Histogram":
        """Histogram of the pairs marked in ``keep``, shape (n_pairs,)."""
        entries = self.spread(keep)
        return Histogram(self.values[entries], self.weights[entries], _starts(self.lengths[keep]))


def iter_histograms(
    x: ArrayLike | sparse.sparray | sparse.spmatrix,
    labels: NDArray[np.intp],
    n_labels: int,
    block_entries: int = BLOCK_ENTRIES,
) -> Iterator[tuple[slice, Histogram]]:
    """Histograms of consecutive blocks of genes, in one pass over the non-zeros.

    Parameters
    ----------
    x
        Values, cells x genes, dense or sparse, none negative; any scale on which an absent gene is 0.
    labels
        Label of each cell, 0 to ``n_labels - 1``, shape (n_cells,).
    n_labels
        Number of labels.
    block_entries
        Non-zeros (dense: entries) per block; at least one gene is taken.

    Yields
    ------
    genes
        The block's genes.
    histogram
        Its pairs, gene by gene: pair ``p`` is gene ``p // n_labels`` of the block in label ``p % n_labels``.

    Raises
    ------
    ValueError
        If a value is negative, infinite or not a number.
    """
    columns = as_matrix(x, "csc")
    n_genes = columns.shape[1]
    n_cells = np.bincount(labels, minlength=n_labels)
    ends = columns.indptr if sparse.issparse(columns) else np.arange(n_genes + 1) * columns.shape[0]
    start = 0
    while start < n_genes:
        stop = int(np.searchsorted(ends, int(ends[start]) + block_entries, side="right")) - 1
        stop = min(max(stop, start + 1), n_genes)
        genes = slice(start, stop)
        gene, cell, value = _nonzeros(columns, genes)
        if value.size and not (value.min() > 0 and value.max() < np.inf):  # false for nan, too
            raise ValueError("The dropout rule needs finite values >= 0; found a negative, infinite or missing value.")
        yield genes, _tally(gene * n_labels + labels[cell], value, np.tile(n_cells, stop - start))
        start = stop


def as_matrix(x: ArrayLike | sparse.sparray | sparse.spmatrix, layout: str):
    """Two-dimensional real array, or sparse matrix in the given layout without duplicates; ``x`` itself is not changed.

    Parameters
    ----------
    x
        Cells x genes, dense or sparse.
    layout
        ``"csr"`` or ``"csc"``; dense input stays dense.

    Raises
    ------
    ValueError
        If ``x`` is not two-dimensional or holds no real numbers.
    """
    matrix = x.asformat(layout) if sparse.issparse(x) else np.asarray(x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf":
        raise ValueError(f"Expected a cells x genes matrix of real numbers, got {matrix.ndim}-d {matrix.dtype}.")
    if sparse.issparse(matrix) and not matrix.has_canonical_format:
        matrix = matrix.copy() if matrix is x else matrix
        matrix.sum_duplicates()
    return matrix


def _nonzeros(columns, genes: slice) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Gene (counted from the block's first), cell and value of each non-zero in a block of genes."""
    if not sparse.issparse(columns):
        block = columns[:, genes].T
        gene, cell = np.nonzero(block)
        return gene, cell, block[gene, cell].astype(np.float64)
    indptr = columns.indptr[genes.start : genes.stop + 1]
    entries = slice(indptr[0], indptr[-1])
    gene = np.repeat(np.arange(genes.stop - genes.start), np.diff(indptr))
    cell, value = columns.indices[entries], columns.data[entries].astype(np.float64)
    stored = value != 0
    return (gene, cell, value) if stored.all() else (gene[stored], cell[stored], value[stored])


def _tally(pair: NDArray[np.intp], value: NDArray[np.float64], n_cells: NDArray[np.intp]) -> Histogram:
    """Histogram of non-zeros that are given one by one; ``n_cells`` (n_pairs,) says how many cells each pair has."""
    n_pairs = n_cells.size
    n_zeros = n_cells - np.bincount(pair, minlength=n_pairs)
    pair, value = _sort(pair, value)
    first = np.ones(pair.size, dtype=bool)
    first[1:] = (pair[1:] != pair[:-1]) | (value[1:] != value[:-1])
    first = np.flatnonzero(first)
    pair, value, weight = pair[first], value[first], np.diff(first, append=pair.size)

    indptr = _starts(np.bincount(pair, minlength=n_pairs) + 1)
    place = np.arange(pair.size) + pair + 1  # each pair up to its own has put one zero before it
    values, weights = np.zeros(indptr[-1]), np.empty(indptr[-1])
    values[place], weights[place] = value, weight
    weights[indptr[:-1]] = n_zeros
    return Histogram(values, weights, indptr)


def _sort(pair: NDArray[np.intp], value: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Sort by pair, then value."""
    with np.errstate(over="ignore", under="ignore"):
        single = value.astype(np.float32)
    if not np.array_equal(single, value):
        order = np.lexsort((value, pair))
        return pair[order], value[order]
    # The bits of positive floats ascend as the floats do: one sort of 64-bit keys, five times as fast as a lexsort.
    # Counts below 2^24 and everything stored as float32 come this way.
    key = (pair.astype(np.int64) << 32) | single.view(np.int32)
    key.sort()
    return (key >> 32).astype(np.intp), (key & 0xFFFFFFFF).astype(np.uint32).view(np.float32).astype(np.float64)


def _starts(lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    return np.concatenate([[0], np.cumsum(lengths)])
