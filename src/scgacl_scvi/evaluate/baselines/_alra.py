"""ALRA: a low-rank approximation, cut gene by gene so that genes a cell does not express stay at zero."""

from typing import Any

import numpy as np
from scipy import sparse

from scgacl_scvi.datasets._seed import resolve_seed
from scgacl_scvi.evaluate._heldout import CP10K
from scgacl_scvi.evaluate._matrix import Matrix, row_blocks
from scgacl_scvi.evaluate._scale import libraries, library_size

from ._controls import _counts
from ._knn_smoothing import _check_whole

__all__ = ["alra"]

N_SINGULAR = 100
"""Singular values that the rank is chosen from."""

FIRST_NOISE = 80
"""The spacing below the 80th singular value and all later ones are taken for noise."""

MIN_NOISE = 5
"""Fewer spacings than this give no standard deviation worth the name."""

N_SIGMA = 6.0
"""How many standard deviations above the mean of the noise a spacing has to lie."""

N_ITER = 10
"""Power iterations of the randomised SVD; single-cell spectra fall slowly, so few would blur the last values."""

ROUNDING = 1e-9
"""What a value that is exactly 0 may show by rounding, on the log1p_cp10k scale; it must not pass as signal."""


def alra(counts: Any, *, rank: int | None = None, seed: int | None = None) -> np.ndarray:
    """Complete the matrix at low rank, and keep low values at zero. Scale: counts, at each cell's own depth.

    On the log1p_cp10k scale: a rank-k approximation by randomised SVD; in each gene, values no larger than the
    magnitude of its most negative value become 0, since the approximation scatters true zeros evenly about 0; what is
    left is shifted and scaled to the mean and standard deviation of the gene's observed non-zeros, and is 0 where that
    makes it negative; an observed entry that became 0 gets its observed value back. A gene with no spread among its
    observed non-zeros or among the values left is not rescaled.

    The threshold is the minimum itself; the paper's figures take the 0.001 quantile, which keeps a few more values.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.
    rank
        Rank of the approximation, 1 to the smaller side of ``counts``. None chooses it from the first 100 singular
        values (or as many as there are): the last one whose distance to the next exceeds the mean of the distances from
        the 80th value on by six of their standard deviations.
    seed
        Of the randomised SVD. None takes ``scvi.settings.seed``, or 0 where that is None.

    Returns
    -------
    Expected counts, cells x genes, dense float32: ``expm1(values) / 1e4 * library``, which need not sum to the library.
    Observed entries are above zero; a cell or a gene without a count stays at zero.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero, if ``rank`` is not a
        whole number in its range, or if it is None and the matrix is too small or too even to choose it.

    Examples
    --------
    >>> from scgacl_scvi.evaluate.baselines import alra
    >>> counts = [[9, 3, 0], [6, 0, 0], [9, 4, 0], [0, 0, 5]]
    >>> alra(counts, rank=2).round(1)
    array([[10.8,  3.6,  0. ],
           [ 3.9,  1.4,  0. ],
           [11.7,  3.9,  0. ],
           [ 0. ,  0. ,  5. ]], dtype=float32)

    References
    ----------
    Linderman et al. 2022, doi:10.1038/s41467-021-27729-z.
    """
    from sklearn.utils.extmath import randomized_svd

    counts = _counts(counts)
    smaller = min(counts.shape)
    if rank is not None:
        _check_whole(rank, "rank", smaller, f"the smaller side of a matrix of shape {counts.shape}")
    elif smaller < FIRST_NOISE + MIN_NOISE:
        raise ValueError(
            f"rank: cannot be chosen for a matrix of shape {counts.shape}, which has {smaller} singular values, "
            f"fewer than {FIRST_NOISE + MIN_NOISE}; pass rank, or more cells and genes"
        )
    observed = _log1p_cp10k(counts)
    # No fewer where the rank is given: a rank then has one result, and its last components are the more exact.
    n_components = min(max(N_SINGULAR, rank or 0), smaller)
    u, singular, vt = randomized_svd(observed, n_components, n_iter=N_ITER, random_state=resolve_seed(seed))
    if rank is None:
        rank = _choose_rank(singular)
    return _rates(u[:, :rank] * singular[:rank], vt[:rank], observed, library_size(counts))


def _log1p_cp10k(counts: Matrix) -> sparse.csr_matrix:
    """CSR without stored zeros, float64: the randomised SVD takes it as it is."""
    values = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    values.eliminate_zeros()
    library, _ = libraries(counts, "counts")
    values.data /= np.repeat(library, np.diff(values.indptr))  # first, so that no tiny library overflows
    values.data *= CP10K
    np.log1p(values.data, out=values.data)
    return values


def _choose_rank(singular: np.ndarray) -> int:
    """Return the last place (from 1) where the singular values fall by more than noise does."""
    spacings = singular[:-1] - singular[1:]
    noise = spacings[FIRST_NOISE - 1 :]
    above = np.flatnonzero(spacings > noise.mean() + N_SIGMA * noise.std(ddof=1))
    if not above.size:
        raise ValueError(
            "rank: no singular value of counts stands out from the noise, so none can be chosen; pass rank"
        )
    return int(above[-1]) + 1


def _rates(left: np.ndarray, right: np.ndarray, observed: sparse.csr_matrix, library: np.ndarray) -> np.ndarray:
    """Threshold and rescale ``left @ right`` a few genes at a time, so that only the result is held dense."""
    out = np.empty(observed.shape, np.float32)
    by_gene = observed.tocsc()
    for genes in row_blocks(observed.shape[::-1]):
        seen = by_gene[:, genes].toarray()
        values = _thresholded(left @ right[:, genes], seen)
        np.copyto(values, seen, where=(seen > 0) & (values == 0))
        out[:, genes] = np.expm1(values) * (library / CP10K)[:, None]
    return out


def _thresholded(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Cells x genes: the values above their gene's threshold, at the location and spread of what was seen."""
    kept = values > np.maximum(-values.min(0), ROUNDING)
    mean, sd = _mean_sd(values, kept)
    target_mean, target_sd = _mean_sd(seen, seen > 0)
    spread = (sd > 0) & (target_sd > 0)
    scale = np.divide(target_sd, sd, out=np.ones_like(sd), where=spread)
    shift = np.where(spread, target_mean - mean * scale, 0.0)
    return np.where(kept, np.maximum(values * scale + shift, 0), 0)


def _mean_sd(values: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sample standard deviation per gene over chosen cells; 0 where there are too few to have one."""
    n = chosen.sum(0)
    mean = values.sum(0, where=chosen) / np.maximum(n, 1)
    squares = np.square(values - mean).sum(0, where=chosen)
    return mean, np.sqrt(squares / np.maximum(n - 1, 1))
