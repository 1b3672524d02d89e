"""Over-smoothing inside cell types."""

from typing import Any

import numpy as np

from ._matrix import Matrix, as_matrix, check_values, dense_rows, label_codes, one_hot, row_blocks, same_shape


def within_type_variance_ratio(imputed: Any, reference: Any, labels: Any) -> float:
    """Share of the variance inside cell types that imputation keeps.

    For each gene the variance around the means of the labels is divided by that of the reference; the result is the
    mean over genes. 1 is faithful, near 0 is over-smoothed, above 1 is added noise. Genes that do not vary inside any
    type of the reference are left out.

    Parameters
    ----------
    imputed
        Imputed values on the lognorm scale, cells x genes, dense or sparse.
    reference
        Truth (or raw data) on the lognorm scale, cells x genes, dense or sparse.
    labels
        Cell type of each cell, length cells.

    Returns
    -------
    Mean ratio over genes.

    Raises
    ------
    ValueError
        If shapes differ, a label is missing, a value is not finite, or the reference does not vary inside the types.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import within_type_variance_ratio
    >>> within_type_variance_ratio([[1.0], [2.0]], [[1.0], [3.0]], ["B", "B"])
    0.25
    """
    imputed, reference = as_matrix(imputed, "imputed"), as_matrix(reference, "reference")
    same_shape(reference=reference, imputed=imputed)
    check_values(imputed, "imputed", nonnegative=False)
    check_values(reference, "reference", nonnegative=False)
    codes, _ = label_codes(labels, reference.shape[0])
    denominator, rounding = _squares_within(reference, codes)
    varies = denominator > rounding
    if not varies.any():
        raise ValueError("reference: no gene varies inside any label; pass one with differing cells")
    numerator, _ = _squares_within(imputed, codes)
    return float(np.mean(numerator[varies] / denominator[varies]))


def _squares_within(x: Matrix, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of squares around the label means per gene, and the size that rounding alone could give it."""
    n, g = x.shape
    counts = np.bincount(codes)
    members = one_hot(codes)  # L x n
    means = np.zeros((len(counts), g))
    raw = np.zeros(g)
    for rows in row_blocks(x.shape):
        block = dense_rows(x, rows)
        means += members[:, rows] @ block
        raw += np.einsum("ng,ng->g", block, block)
    means /= counts[:, None]
    squares = np.zeros(g)
    for rows in row_blocks(x.shape):
        block = dense_rows(x, rows)
        block -= means[codes[rows]]
        squares += np.einsum("ng,ng->g", block, block)
    return squares, 1e-12 * raw
