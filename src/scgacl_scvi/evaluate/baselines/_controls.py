"""Controls that every method has to beat: counts in, a matrix of cells x genes out.

The scale of the result differs: :func:`no_imputation`, :func:`all_zeros` and :func:`gene_mean` return counts, as
:func:`scgacl_scvi.evaluate.molecular_cv` expects; :func:`gene_mean_impute` and :func:`type_mean` return lognorm,
as :func:`scgacl_scvi.evaluate.recovery` expects.
"""

from typing import Any

import numpy as np
from scipy import sparse

from scgacl_scvi.evaluate._matrix import Matrix, as_matrix, check_values, label_codes, one_hot, row_blocks
from scgacl_scvi.evaluate._scale import library_size, lognorm

__all__ = ["all_zeros", "gene_mean", "gene_mean_impute", "no_imputation", "type_mean"]


def no_imputation(counts: Any) -> Matrix:
    """Return a copy of the counts. Scale: counts.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.

    Returns
    -------
    Counts, cells x genes, CSR for sparse input.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers.
    """
    return _counts(counts).copy()


def all_zeros(counts: Any) -> Matrix:
    """Predict that nothing is expressed. Scale: counts.

    A measure that praises it rewards leaving zeros, not finding the expression.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.

    Returns
    -------
    Zeros, cells x genes, CSR for sparse input.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers.
    """
    counts = _counts(counts)
    return type(counts)(counts.shape, dtype=counts.dtype) if sparse.issparse(counts) else np.zeros_like(counts)


def gene_mean(counts: Any) -> np.ndarray:
    """Library size times the gene's share of all counts. Scale: counts, at each cell's own depth.

    It keeps the total of every cell and every gene, and knows nothing else.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.

    Returns
    -------
    Expected counts, cells x genes, dense float32.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero.
    """
    counts = _counts(counts)
    genes = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    if not genes.any():
        raise ValueError("counts: all entries are zero, so genes have no mean; pass counts above zero")
    library = library_size(counts).astype(np.float32)
    return np.outer(library, (genes / genes.sum()).astype(np.float32))


def gene_mean_impute(counts: Any) -> np.ndarray:
    """Fill zeros with the mean of the gene's non-zero values. Scale: lognorm.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.

    Returns
    -------
    Lognorm values, cells x genes, dense float32: observed entries as they are, zeros filled. A gene without a count
    stays at zero.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero.
    """
    counts = _counts(counts)
    return type_mean(counts, np.zeros(counts.shape[0], int))


def type_mean(counts: Any, labels: Any) -> np.ndarray:
    """Fill zeros with the mean of the gene's non-zero values in the cell's type. Scale: lognorm.

    It uses the labels: show it only beside methods that do, too.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.
    labels
        Cell type of each cell, length cells.

    Returns
    -------
    Lognorm values, cells x genes, dense float32: observed entries as they are, zeros filled. A gene without a count in
    a type stays at zero there.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero, or a label is
        missing.

    Examples
    --------
    >>> from scgacl_scvi.evaluate.baselines import type_mean
    >>> type_mean([[2, 2], [4, 0], [0, 4]], ["B", "B", "T"]).round(2)
    array([[1.1 , 1.1 ],
           [1.61, 1.1 ],
           [0.  , 1.61]], dtype=float32)
    """
    counts = _counts(counts)
    codes, _ = label_codes(labels, counts.shape[0])
    values = sparse.csr_matrix(lognorm(counts), dtype=np.float32)
    values.eliminate_zeros()
    members = one_hot(codes)  # L x n
    sums = (members @ values.astype(np.float64)).toarray()
    n_nonzero = (members @ (values != 0)).toarray()
    fill = np.divide(sums, n_nonzero, out=np.zeros_like(sums), where=n_nonzero > 0).astype(np.float32)  # L x g
    out = fill[codes]
    for rows in row_blocks(out.shape):
        observed = values[rows].toarray()
        np.copyto(out[rows], observed, where=observed != 0)
    return out


def _counts(counts: Any) -> Matrix:
    counts = as_matrix(counts, "counts")
    check_values(counts, "counts", nonnegative=True)
    return counts
