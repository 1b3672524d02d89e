"""Agreement of a fixed clustering with known labels."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ._matrix import Matrix, as_matrix, check_values, label_codes

N_COMPONENTS = 50


@dataclass(frozen=True)
class ClusteringAgreement:
    """Agreement of k-means clusters with labels."""

    ari: float
    """Adjusted Rand index: 1 for the same partition, about 0 for a random one."""
    nmi: float
    """Normalised mutual information, 0 to 1."""


def clustering_agreement(x: Any, labels: Any, seed: int = 0) -> ClusteringAgreement:
    """Cluster cells by k-means and compare the clusters with labels.

    k-means (scikit-learn, as many clusters as labels, 10 starts) runs on 50 principal components, or on as many as the
    matrix has. Use labels that do not come from the expression itself, and do not show them to the model.

    Parameters
    ----------
    x
        Values on the lognorm scale, cells x genes, dense or sparse.
    labels
        Label of each cell, length cells, at least two different ones.
    seed
        Seed of the principal components and of k-means.

    Returns
    -------
    Adjusted Rand index and normalised mutual information.

    Raises
    ------
    ValueError
        If a value is not finite, a label is missing, or all labels are the same.

    Examples
    --------
    >>> from scgacl_scvi.evaluate import clustering_agreement
    >>> clustering_agreement([[0.0, 1.0], [0.1, 1.0], [5.0, 0.0], [5.1, 0.0]], ["a", "a", "b", "b"]).ari
    1.0

    References
    ----------
    Hubert & Arabie 1985 (adjusted Rand index).
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    x = as_matrix(x, "x")
    check_values(x, "x", nonnegative=False)
    codes, names = label_codes(labels, x.shape[0])
    if len(names) < 2:
        raise ValueError(f"labels: all cells are {str(names[0])!r}; pass at least two different labels")
    with warnings.catch_warnings():
        # Fewer distinct cells than labels (a method that returns one profile) is a result, not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(len(names), n_init=10, random_state=seed).fit_predict(_principal_components(x, seed))
    return ClusteringAgreement(
        ari=float(adjusted_rand_score(codes, clusters)),
        nmi=float(normalized_mutual_info_score(codes, clusters)),
    )


def _principal_components(x: Matrix, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    n_components = max(1, min(N_COMPONENTS, min(x.shape) - 1))
    if sparse.issparse(x) and n_components >= min(x.shape):
        x = x.toarray()  # the sparse solver needs fewer components than genes; here there is a single gene
    if not _varies(x):
        return np.zeros((x.shape[0], 1))
    return PCA(n_components, random_state=seed).fit_transform(x)


def _varies(x: Matrix) -> bool:
    """Whether any two cells differ."""
    if sparse.issparse(x):
        return (x.max(axis=0) - x.min(axis=0)).nnz > 0
    return bool((np.ptp(x, axis=0) > 0).any())
