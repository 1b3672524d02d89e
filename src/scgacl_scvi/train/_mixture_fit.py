"""First estimate of the mixture prior from the latent means of the autoencoder."""

from dataclasses import dataclass, replace

import numpy as np

from scgacl_scvi._compat import torch_threads_kept

MIN_CLUSTERS, MAX_CLUSTERS = 2, 20
_MAX_CELLS_FOR_BIC = 4000


@dataclass(frozen=True)
class MixtureStart:
    """Means (K x D), variances (K x D) and weights (K) of the mixture, and BIC by K where K was chosen by it."""

    means: np.ndarray
    variances: np.ndarray
    weights: np.ndarray
    bic: dict[int, float]


def fit_mixture(
    latent: np.ndarray,
    *,
    n_clusters: int | None,
    labels: np.ndarray | None = None,
    n_labels: int = 0,
    reg_covar: float = 1e-3,
    seed: int = 0,
) -> MixtureStart:
    """Fit a diagonal Gaussian mixture to latent means.

    Parameters
    ----------
    latent
        Latent means, cells x D.
    n_clusters
        Number of components. None: the number of labels, or without labels the K of 2 to 20 with the lowest BIC.
    labels
        Label codes, ``n_labels`` meaning unlabelled; component c starts at the cells of label c.
    n_labels
        Number of labels.
    reg_covar
        Added to each variance.
    seed
        Seed of scikit-learn.
    """
    from sklearn.mixture import GaussianMixture

    latent = np.asarray(latent, dtype=np.float64)
    n_distinct = len(np.unique(latent, axis=0))

    def mixture(k: int, **start) -> GaussianMixture:
        return GaussianMixture(
            min(k, n_distinct), covariance_type="diag", reg_covar=reg_covar, random_state=seed, max_iter=200, **start
        )

    labelled = labels is not None and n_labels > 0 and bool((labels < n_labels).any())
    if labelled:
        return _labelled_start(latent, labels, n_labels, n_clusters or n_labels, reg_covar, mixture)
    bic: dict[int, float] = {}
    if n_clusters is None:
        few = latent
        if len(latent) > _MAX_CELLS_FOR_BIC:
            few = latent[np.random.default_rng(seed).choice(len(latent), _MAX_CELLS_FOR_BIC, replace=False)]
        ks = range(MIN_CLUSTERS, min(MAX_CLUSTERS, max(MIN_CLUSTERS, len(few) // 5)) + 1)
        bic = {k: float(_quiet_fit(mixture(k), few).bic(few)) for k in ks}
        n_clusters = min(bic, key=bic.get)
    fitted = _quiet_fit(mixture(n_clusters), latent)
    return MixtureStart(fitted.means_, fitted.covariances_, fitted.weights_, bic)


def fit_mixtures(
    latent: np.ndarray, strata: np.ndarray | None, n_strata: int, *, labels: np.ndarray | None = None, **settings
) -> list[MixtureStart]:
    """Fit one mixture to the cells of each stratum; their weights are shares of all cells.

    A stratum without training cells starts as one component around all of them. Other arguments as
    :func:`fit_mixture`.
    """
    if strata is None:
        return [fit_mixture(latent, labels=labels, **settings)]
    starts = []
    for stratum in range(n_strata):
        own = strata == stratum
        if own.sum() < 2:
            start = MixtureStart(latent.mean(0)[None], latent.var(0)[None] + settings["reg_covar"], np.ones(1), {})
        else:
            start = fit_mixture(latent[own], labels=None if labels is None else labels[own], **settings)
        starts.append(replace(start, weights=start.weights * max(own.mean(), 1 / len(latent))))
    return starts


def _labelled_start(latent, labels, n_labels, k, reg_covar, mixture) -> MixtureStart:
    """Components at their labels' cells; further components, if any, where the labels' lie worst."""
    means = np.tile(latent.mean(0), (n_labels, 1))
    variances = np.tile(latent.var(0) + reg_covar, (n_labels, 1))
    weights = np.full(n_labels, 1.0)
    pooled = np.mean(
        [latent[labels == c].var(0) for c in range(n_labels) if (labels == c).sum() > 1] or [latent.var(0)], 0
    )
    for c in range(n_labels):
        own = latent[labels == c]
        weights[c] = max(len(own), 1)
        if len(own):
            means[c] = own.mean(0)
            # A few cells do not show a spread: borrow the other labels'.
            share = len(own) / (len(own) + 5)
            variances[c] = share * own.var(0) + (1 - share) * pooled + reg_covar
    weights /= weights.sum()
    if (labels < n_labels).all() and k == n_labels:
        return MixtureStart(means, variances, weights, {})
    if k > n_labels:
        chosen = list(means)
        for _ in range(k - n_labels):
            distance = np.min([((latent - centre) ** 2 / pooled.clip(1e-6)).sum(1) for centre in chosen], 0)
            chosen.append(latent[distance.argmax()])
        means = np.asarray(chosen)
        variances = np.vstack([variances, np.tile(pooled + reg_covar, (k - n_labels, 1))])
        weights = np.full(k, 1.0 / k)
    fitted = _quiet_fit(mixture(k, means_init=means, precisions_init=1 / variances, weights_init=weights), latent)
    return MixtureStart(fitted.means_, fitted.covariances_, fitted.weights_, {})


def _quiet_fit(mixture, latent):
    """Fit; that EM was cut off at its last iteration does not matter for a start, so it is no warning for the user."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with torch_threads_kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(latent)
