"""The lognorm scale."""

from typing import Any

import numpy as np
from scipy import sparse

from ._matrix import Matrix, as_matrix, check_values, dense_rows, row_blocks


def lognorm(counts: Any) -> Matrix:
    """Log-normalise counts: ``log1p(counts / library * median library)``.

    The library size of a cell is its sum over the given genes; the median runs over the cells that hold a count. Each
    matrix is thus scaled to its *own* median library. A cell without a count stays at zero.

    Parameters
    ----------
    counts
        Counts or expected counts, cells x genes, dense or sparse.

    Returns
    -------
    Matrix of the same shape on the lognorm scale: CSR for sparse input, an array otherwise; float64 if ``counts`` is,
    float32 otherwise.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import lognorm
    >>> lognorm([[1.0, 3.0], [4.0, 4.0]]).round(3).tolist()
    [[0.916, 1.705], [1.386, 1.386]]
    """
    counts = as_matrix(counts, "counts")
    library, median = libraries(counts, "counts")
    dtype = np.float64 if counts.dtype == np.float64 else np.float32
    if sparse.issparse(counts):
        values = counts.data / np.repeat(library, np.diff(counts.indptr))
        values *= median
        data = np.log1p(values, out=values).astype(dtype, copy=False)
        # Index arrays are copied: the caller's matrix must not change with ours.
        return type(counts)((data, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)
    out = np.empty(counts.shape, dtype)
    for rows in row_blocks(counts.shape):
        out[rows] = lognorm_rows(counts, library, median, rows)
    return out


def library_size(counts: Matrix) -> np.ndarray:
    """Sum the counts of each cell in float64."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def libraries(counts: Matrix, name: str) -> tuple[np.ndarray, float]:
    """Library size of each cell (1 for an empty one, to divide by), and the median of the cells that hold a count."""
    check_values(counts, name, nonnegative=True)
    library = library_size(counts)
    filled = library > 0
    if not filled.any():
        raise ValueError(f"{name}: all entries are zero, so there is no library size; pass counts above zero")
    return np.where(filled, library, 1.0), float(np.median(library[filled]))


def lognorm_rows(counts: Matrix, library: np.ndarray, median: float, rows: slice) -> np.ndarray:
    """Dense lognorm block of some rows, with the result of :func:`libraries`."""
    block = dense_rows(counts, rows)
    block /= library[rows, None]  # first, so that no tiny library overflows
    block *= median
    return np.log1p(block, out=block)
