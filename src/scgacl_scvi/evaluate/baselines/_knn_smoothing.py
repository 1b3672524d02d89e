"""kNN-smoothing 2: sum the counts of similar cells, found step by step on sums of more and more cells."""

from typing import Any

import numpy as np
from scipy import sparse

from scgacl_scvi.datasets._seed import resolve_seed
from scgacl_scvi.evaluate._matrix import Matrix, dense_rows, row_blocks
from scgacl_scvi.evaluate._scale import libraries, library_size

from ._controls import _counts

__all__ = ["knn_smoothing"]

TIE_WEIGHT = 1e-4
"""Weight of the distance between unsmoothed profiles: it only orders cells whose smoothed profiles are the same."""


def knn_smoothing(counts: Any, *, n_neighbors: int = 15, n_pcs: int = 10, seed: int | None = None) -> np.ndarray:
    """Sum each cell's counts with those of its nearest neighbours. Scale: counts, at each cell's own depth.

    Neighbours are found in steps t = 1, 2, ...: the profiles of the step before (at first the counts) are scaled to
    their median total, stabilised with the Freeman-Tukey transform ``sqrt(x) + sqrt(x + 1)`` and projected onto
    ``n_pcs`` principal components; each cell's new profile is the sum of the *raw* counts of the cell itself and the
    ``min(2**t - 1, n_neighbors)`` cells nearest to it. Last, each profile is scaled to its cell's own library size.

    From the second step on, mutual neighbours share one profile and are equally near to everyone; of such cells the one
    whose own counts are nearer comes first, where the authors displace the components a little at random.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.
    n_neighbors
        Cells summed with each cell, the paper's k: 1 to cells - 1. The more, the smoother.
    n_pcs
        Principal components that distances are taken on, the paper's d: 1 to the smaller side of ``counts``.
    seed
        Of the randomised PCA that large matrices get. None takes ``scvi.settings.seed``, or 0 where that is None.

    Returns
    -------
    Expected counts, cells x genes, dense float32. A cell keeps its library size; one without a count stays at zero.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero, or ``n_neighbors``
        or ``n_pcs`` is not a whole number in its range.

    Examples
    --------
    >>> from scgacl_scvi.evaluate.baselines import knn_smoothing
    >>> counts = [[4, 0, 1], [2, 0, 2], [0, 3, 1], [0, 8, 0]]
    >>> knn_smoothing(counts, n_neighbors=1, n_pcs=2).round(1)
    array([[3.3, 0. , 1.7],
           [2.7, 0. , 1.3],
           [0. , 3.7, 0.3],
           [0. , 7.3, 0.7]], dtype=float32)

    References
    ----------
    Wagner, Yan & Yanai 2018, doi:10.1101/217737, kNN-smoothing 2.
    """
    counts = _counts(counts)
    n_cells = counts.shape[0]
    _check_whole(n_neighbors, "n_neighbors", n_cells - 1, f"{n_cells} cells leave each one {n_cells - 1} others")
    _check_whole(n_pcs, "n_pcs", min(counts.shape), f"a matrix of shape {counts.shape} has no more components")
    seed = resolve_seed(seed)

    smoothed, step = counts, 0
    points = first = _components(counts, n_pcs, seed)
    while True:
        step = min(2 * step + 1, n_neighbors)  # 1, 3, 7, ...: 2**t - 1
        smoothed = _aggregation(points, step) @ counts
        if step == n_neighbors:
            break
        # Mutual neighbours now have one and the same profile: ties are the rule, and the cells' own counts break them.
        points = np.hstack([_components(smoothed, n_pcs, seed), TIE_WEIGHT * first])

    out = np.empty(counts.shape, np.float32)
    own, total = library_size(counts), library_size(smoothed)
    # A profile holds the cell's own counts: its total is 0 only where the cell's is.
    factor = own / np.where(total > 0, total, 1.0)
    for rows in row_blocks(out.shape):
        out[rows] = dense_rows(smoothed, rows) * factor[rows, None]
    return out


def _components(profiles: Matrix, n_pcs: int, seed: int) -> np.ndarray:
    """Principal components of the stabilised profiles, cells x ``n_pcs``."""
    from sklearn.decomposition import PCA

    library, median = libraries(profiles, "counts")
    stabilised = np.empty(profiles.shape)  # float64: in float32 rounding would outweigh TIE_WEIGHT
    for rows in row_blocks(profiles.shape):
        x = dense_rows(profiles, rows)
        x /= library[rows, None]
        x *= median
        stabilised[rows] = np.sqrt(x) + np.sqrt(x + 1)
    # Where all cells are alike, the share of variance that PCA reports, unused here, is 0 / 0.
    with np.errstate(invalid="ignore"):
        return PCA(n_pcs, copy=False, random_state=seed).fit_transform(stabilised)


def _aggregation(points: np.ndarray, n_neighbors: int) -> sparse.csr_matrix:
    """Cells x cells, 1 at the cell itself and its nearest neighbours: times the counts, the sum over them."""
    from sklearn.neighbors import NearestNeighbors

    # Without a query the cell itself is left out by its index, so a cell with a twin still counts itself.
    neighbours = NearestNeighbors(n_neighbors=n_neighbors).fit(points).kneighbors_graph()
    return (neighbours + sparse.identity(len(points), format="csr")).astype(np.float32)


def _check_whole(value: Any, name: str, most: int, why: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= most:
        raise ValueError(f"{name}: got {value!r}; pass a whole number from 1 to {most} ({why})")
