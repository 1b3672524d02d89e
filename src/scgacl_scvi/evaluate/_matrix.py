"""Cells x genes matrices of any container, read a few rows at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

Matrix = np.ndarray | sparse.csr_matrix | sparse.csr_array

BLOCK_ENTRIES = 2**21
"""Entries of one dense block of rows: 16 MB in float64."""


def as_matrix(x: Any, name: str) -> Matrix:
    """``x`` as a two-dimensional array or a CSR matrix, without a copy where it is one already."""
    if sparse.issparse(x):
        x = x.tocsr()
        if not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
    elif isinstance(x, pd.DataFrame):
        x = x.to_numpy()
    elif hasattr(x, "obs_names"):
        raise ValueError(f"{name}: got an AnnData; pass the matrix itself, adata.X or adata.layers[...]")
    else:
        x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"{name}: expected cells x genes, got {x.ndim} dimension(s); reshape it to two")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected real numbers, got dtype {x.dtype}; convert it with .astype(float)")
    if 0 in x.shape:
        raise ValueError(f"{name}: is empty, shape {x.shape}; pass at least one cell and one gene")
    return x


def same_shape(**matrices: Matrix) -> None:
    """Raise unless all matrices have the shape of the first."""
    (first, reference), *rest = matrices.items()
    for name, matrix in rest:
        if matrix.shape != reference.shape:
            raise ValueError(
                f"{name}: shape {matrix.shape} differs from that of {first}, {reference.shape}; "
                "pass the same cells and genes in the same order"
            )


def check_values(x: Matrix, name: str, *, nonnegative: bool) -> None:
    """Raise at a NaN, an infinity or, if asked, a negative value."""
    for rows in row_blocks(x.shape):
        # The stored values of a CSR block are enough: what it does not store is 0.
        values = x.data[x.indptr[rows.start] : x.indptr[rows.stop]] if sparse.issparse(x) else x[rows]
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: holds NaN or infinite values; remove or replace them first")
        if nonnegative and values.size and values.min() < 0:
            raise ValueError(f"{name}: holds negative values; pass counts or rates, neither centred nor scaled")


def row_blocks(shape: tuple[int, int]) -> Iterator[slice]:
    """Slices of consecutive rows, each of about ``BLOCK_ENTRIES`` entries."""
    n, g = shape
    step = max(1, BLOCK_ENTRIES // g)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def dense_rows(x: Matrix, rows: slice) -> np.ndarray:
    """Rows as a dense float64 block of its own."""
    block = x[rows]
    if sparse.issparse(block):
        return block.toarray().astype(np.float64, copy=False)
    return np.array(block, dtype=np.float64)


def label_codes(labels: Any, n_cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes 0..L-1 of one label per cell, and the L labels."""
    codes, names = pd.factorize(np.asarray(labels), sort=False)
    if codes.shape != (n_cells,):
        raise ValueError(f"labels: expected one label for each of {n_cells} cells, got shape {np.shape(labels)}")
    if (codes < 0).any():
        raise ValueError("labels: some cells have no label (NaN); drop these cells or name them")
    return codes, np.asarray(names)


def one_hot(codes: np.ndarray) -> sparse.csc_matrix:
    """Membership matrix, labels x cells; CSC, so that blocks of cells are cheap to cut out."""
    n = len(codes)
    return sparse.csc_matrix((np.ones(n), codes, np.arange(n + 1)), shape=(codes.max() + 1, n))
