"""From blocks of cells to one result: an array, a sparse matrix or a data frame."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pandas as pd
from scipy import sparse

from ._checks import check_choice
from ._selection import Selection

ReturnType = Literal["frame", "numpy", "csr"]
RETURN_TYPES = ("frame", "numpy", "csr")
_BLOCK_ENTRIES = 2**22


def check_return_type(return_type: str | None, return_numpy: bool = False, default: str = "frame") -> str:
    """The kind of result asked for."""
    if return_type is None:
        return "numpy" if return_numpy else default
    check_choice("return_type", return_type, RETURN_TYPES)
    if return_numpy and return_type != "numpy":
        raise ValueError(f"`return_numpy=True` contradicts `return_type={return_type!r}`; give one of the two.")
    return return_type


def dense_of(blocks: Iterator[np.ndarray], n: int | None) -> np.ndarray:
    """Blocks (... x cells x genes) as one float32 array, filled in place where its number of cells is known."""
    values, parts, start = None, [], 0
    for block in blocks:
        if n is None:
            parts.append(block)
            continue
        if values is None:
            values = np.empty((*block.shape[:-2], n, block.shape[-1]), dtype=np.float32)
        values[..., start : start + block.shape[-2], :] = block
        start += block.shape[-2]
    return np.concatenate(parts, axis=-2) if n is None else values


def csr_of(blocks: Iterator[np.ndarray | sparse.csr_matrix], n_genes: int) -> sparse.csr_matrix:
    """Blocks (cells x genes, dense or CSR) as one CSR matrix; no more than one block is ever dense."""
    data, indices, lengths = [], [], [np.zeros(1, dtype=np.int64)]
    for block in blocks:
        block = sparse.csr_matrix(block, dtype=np.float32)
        data.append(block.data)
        indices.append(block.indices.astype(np.int32, copy=False))
        lengths.append(np.diff(block.indptr).astype(np.int64))
    indptr = np.cumsum(np.concatenate(lengths))
    data, indices = _joined(data, np.float32), _joined(indices, np.int32)
    # One integer type for both index arrays: scipy would copy the smaller one otherwise.
    index = np.int32 if indptr[-1] <= np.iinfo(np.int32).max else np.int64
    shape = (len(indptr) - 1, n_genes)
    return sparse.csr_matrix((data, indices.astype(index, copy=False), indptr.astype(index)), shape=shape)


def smaller_of(values: np.ndarray) -> np.ndarray | sparse.csr_matrix:
    """The array itself, or a CSR matrix of the same values where that takes less memory."""
    n, n_genes = values.shape
    step = max(1, _BLOCK_ENTRIES // max(1, n_genes))
    blocks = [values[start : start + step] for start in range(0, n, step)]
    nnz = sum(np.count_nonzero(block) for block in blocks)
    index = 4 if nnz <= np.iinfo(np.int32).max else 8
    if nnz * (values.itemsize + index) + (n + 1) * index >= values.nbytes:
        return values
    return csr_of(iter(blocks), n_genes)


def as_asked(values, selection: Selection, return_type: str):
    """The result in the form asked for."""
    if return_type == "frame":
        values = values.toarray() if sparse.issparse(values) else values
        return pd.DataFrame(values, index=selection.cell_names, columns=selection.gene_names, copy=False)
    if return_type == "csr":
        return values if sparse.issparse(values) else csr_of(iter([values]), values.shape[1])
    return values.toarray() if sparse.issparse(values) else values


def _joined(arrays: list[np.ndarray], dtype) -> np.ndarray:
    joined = np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)
    arrays.clear()  # else both live until the other list is joined
    return joined
