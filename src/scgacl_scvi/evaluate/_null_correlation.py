"""Correlation between genes that have none."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._matrix import as_matrix, check_values

LEVEL = 0.05
"""Chance of a single false pair among all pairs (Bonferroni)."""

SPEARMAN_VARIANCE = 1.06
"""Variance of Fisher's z of a rank correlation, times n - 3 (Fieller, Hartley & Pearson 1957)."""

DIGITS = 9
"""Decimals that are ranked: what differs beyond them is rounding, and ties."""

_BLOCK_GENES = 1024


@dataclass(frozen=True)
class NullCorrelation:
    """Significant correlations between genes of data simulated without any, types and depth apart."""

    false_share: float
    """Significant share of the pairs that are *not* both differential: invented signal. NaN without such a pair."""
    true_share: float
    """Significant share of the pairs that are both differential: signal kept. NaN without such a pair."""
    n_null_pairs: int
    """Pairs of which at least one gene is not differential."""
    n_true_pairs: int
    """Pairs of two differential genes."""


def null_correlation(values: Any, differential: Any) -> NullCorrelation:
    """Count significant rank correlations between genes, of which only the differential ones have any.

    In data such as :func:`scgacl_scvi.datasets.simulate_null` gives, the genes are independent but for the cell type,
    which moves the differential ones. So a pair is truly correlated if both of its genes are differential. Spearman
    correlations (average ranks) go through Fisher's z with the variance 1.06 / (n - 3), two-sided, Bonferroni .05 over
    all pairs.

    Parameters
    ----------
    values
        What an analysis of correlations would be given (raw, imputed or sampled), cells x genes, dense or sparse, on a
        scale on which cells of different depth compare, such as lognorm.
    differential
        Whether each gene differs between the types, length genes.

    Returns
    -------
    Share of the null pairs and of the true pairs that are significant. A gene that does not vary correlates with none.

    Raises
    ------
    ValueError
        If a value is not finite, ``differential`` does not fit, or there are fewer than four cells or two genes.

    Examples
    --------
    >>> from scgacl_scvi.datasets import simulate_null
    >>> from scgacl_scvi.evaluate import lognorm, null_correlation
    >>> null = simulate_null(n_cells=300, n_genes=60, seed=0)
    >>> found = null_correlation(lognorm(null.X), null.var["differential"])
    >>> found.false_share < 0.01 < 0.3 < found.true_share
    True

    References
    ----------
    Andrews & Hemberg 2018, doi:10.12688/f1000research.16613 (false signals of imputation).
    """
    values = as_matrix(values, "values")
    check_values(values, "values", nonnegative=False)
    n, g = values.shape
    if n < 4 or g < 2:
        raise ValueError(f"values: got {n} cells x {g} genes; Fisher's z needs at least 4 cells, a pair 2 genes")
    differential = _flags(differential, g)

    # |z| > limit, solved for the correlation: one comparison per pair, and no infinity at 1.
    limit = math.tanh(_normal_limit(g * (g - 1) // 2) * math.sqrt(SPEARMAN_VARIANCE / (n - 3)))
    ranks = _standard_ranks(values)
    found_null = found_true = 0
    for start in range(0, g, _BLOCK_GENES):
        genes = slice(start, min(start + _BLOCK_GENES, g))
        significant = np.abs(ranks[:, genes].T @ ranks[:, start:]) > limit  # a block of genes x it and all after it
        significant &= np.arange(g - start) > np.arange(genes.stop - start)[:, None]  # each pair once
        both = significant & (differential[genes, None] & differential[start:])
        found_true += int(both.sum())
        found_null += int(significant.sum() - both.sum())
    n_differential = int(differential.sum())
    n_true = n_differential * (n_differential - 1) // 2
    n_null = g * (g - 1) // 2 - n_true
    return NullCorrelation(
        false_share=found_null / n_null if n_null else math.nan,
        true_share=found_true / n_true if n_true else math.nan,
        n_null_pairs=n_null,
        n_true_pairs=n_true,
    )


def _normal_limit(n_pairs: int) -> float:
    from scipy.stats import norm

    return float(norm.isf(LEVEL / n_pairs / 2))


def _standard_ranks(values: Any) -> np.ndarray:
    """Average ranks of each gene, centred and of length 1; zero for a gene that does not vary."""
    from scipy import sparse
    from scipy.stats import rankdata

    dense = values.toarray() if sparse.issparse(values) else values
    ranks = rankdata(np.round(dense.astype(np.float64), DIGITS), axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt(np.einsum("ng,ng->g", ranks, ranks))
    return ranks / np.where(length > 0, length, 1.0)


def _flags(differential: Any, n_genes: int) -> np.ndarray:
    flags = np.asarray(differential)
    if flags.shape != (n_genes,):
        raise ValueError(f"differential: expected one value for each of {n_genes} genes, got shape {flags.shape}")
    if flags.dtype.kind != "b" and not np.isin(flags, (0, 1)).all():
        raise ValueError("differential: expected True or False for each gene; pass adata.var['differential']")
    return flags.astype(bool)
