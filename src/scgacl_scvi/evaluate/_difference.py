"""Whether the difference between two conditions is still there."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ._matrix import Matrix, as_matrix, check_values, dense_rows, label_codes, row_blocks, same_shape

N_GENES = 200
"""Genes with the largest raw change, by which the difference is judged."""

_TOTAL = 1e4


@dataclass(frozen=True)
class Difference:
    """How much of the difference between two conditions is kept."""

    slope: float
    """Slope of imputed on raw log-fold changes (least squares): 1 is kept, 0 is erased, above 1 is exaggerated."""
    correlation: float
    """Their Pearson correlation."""
    n_genes: int
    """Genes that entered."""


def difference_kept(imputed: Any, raw: Any, condition: Any, n_genes: int = N_GENES) -> Difference:
    """Compare the log-fold changes between two conditions after imputation with those of the raw counts.

    The cells of a condition are summed to a pseudobulk (linear scale), which is brought to 10,000 counts; a log-fold
    change is the difference of two log1p. The ``n_genes`` with the largest absolute raw change enter. Raw changes are
    chosen for being large, and of few cells their noise with them: a slope somewhat below 1 may then be right.

    Parameters
    ----------
    imputed
        Imputed values on the lognorm scale, cells x genes, dense or sparse.
    raw
        The counts on the lognorm scale (:func:`lognorm`), cells x genes, dense or sparse.
    condition
        Condition of each cell, length cells, two different ones.
    n_genes
        Number of genes, at least 3; all where there are fewer.

    Returns
    -------
    Slope and correlation over these genes.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, a condition is missing, there are not two of them, or nothing differs.

    Examples
    --------
    >>> import numpy as np
    >>> from scgacl_scvi.evaluate import difference_kept
    >>> raw = np.array([[0.0, 1.0, 2.0, 1.0], [2.0, 1.0, 0.0, 2.0]])
    >>> round(difference_kept(raw, raw, ["control", "treated"]).slope, 3)
    1.0
    """
    imputed, raw = as_matrix(imputed, "imputed"), as_matrix(raw, "raw")
    same_shape(raw=raw, imputed=imputed)
    check_values(imputed, "imputed", nonnegative=True)
    check_values(raw, "raw", nonnegative=True)
    codes, names = label_codes(condition, raw.shape[0])
    if len(names) != 2:
        raise ValueError(f"condition: got {len(names)} different ones; pass the cells of exactly two")
    if n_genes < 3:
        raise ValueError(f"n_genes: got {n_genes!r}; a slope needs at least 3 genes")
    before, after = (_log_fold_changes(x, codes) for x in (raw, imputed))
    chosen = np.argsort(-np.abs(before), kind="stable")[:n_genes]
    before, after = before[chosen], after[chosen]
    if np.ptp(before) == 0:
        raise ValueError("raw: no gene differs between the conditions")
    centred = before - before.mean()
    slope = float(centred @ after / (centred @ centred))
    correlation = float(np.corrcoef(before, after)[0, 1]) if np.ptp(after) > 0 else 0.0
    return Difference(slope=slope, correlation=correlation, n_genes=len(chosen))


def _log_fold_changes(x: Matrix, codes: np.ndarray) -> np.ndarray:
    """Log-fold change of each gene between the pseudobulks of condition 1 and 0."""
    bulk = np.zeros((2, x.shape[1]))
    for rows in row_blocks(x.shape):
        values = np.expm1(dense_rows(x, rows))
        for code in (0, 1):
            bulk[code] += values[codes[rows] == code].sum(0)
    totals = bulk.sum(1, keepdims=True)
    if (totals == 0).any():
        raise ValueError("a condition has no counts at all; pass cells that have some")
    low, high = np.log1p(bulk / totals * _TOTAL)
    return high - low
