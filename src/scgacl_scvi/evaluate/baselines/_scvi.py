"""scVI, the peer closest to this package, in three forms."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from scgacl_scvi.datasets._seed import resolve_seed

from ._controls import _counts

if TYPE_CHECKING:
    from scvi.model import SCVI

__all__ = ["scvi_defaults", "scvi_nb", "scvi_nb_both"]

N_SAMPLES = 25
"""Posterior samples of which the rates are the mean."""


def scvi_defaults(counts: Any, *, seed: int | None = None, **train: Any) -> np.ndarray:
    """Fit scVI as it comes: zero-inflated likelihood, its own number of epochs. Scale: counts.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.
    seed
        Of weights, batches and samples. None takes ``scvi.settings.seed``, or 0 where that is None.
    **train
        Arguments of :meth:`scvi.model.SCVI.train`, such as ``max_epochs``.

    Returns
    -------
    Expected counts at each cell's own depth (``library_size="latent"``), mean of 25 posterior samples, cells x genes,
    dense float32. As always in scVI this is the mean before zero inflation. A cell without a count is not shown to
    scVI, which cannot do with it, and stays at zero.

    Raises
    ------
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero.

    Examples
    --------
    >>> from scgacl_scvi.datasets import demo
    >>> from scgacl_scvi.evaluate.baselines import scvi_defaults
    >>> scvi_defaults(demo().X[:50, :20], max_epochs=1).shape
    (50, 20)

    References
    ----------
    Lopez et al. 2018, doi:10.1038/s41592-018-0229-2.
    """
    return _fit(counts, seed, {}, train)[1]


def scvi_nb(counts: Any, *, posterior_mean: bool = False, seed: int | None = None, **train: Any) -> np.ndarray:
    """Fit scVI with a negative-binomial likelihood and early stopping. Scale: counts.

    With ``posterior_mean`` the rates are what this package would make of scVI's fit, the gamma-Poisson posterior mean
    ``(x + theta) / (mu + theta) * mu`` with mu the rates and theta scVI's inverse dispersion of the gene: the control
    that shows what the rest of the package adds.

    Parameters
    ----------
    counts, seed, **train
        As for :func:`scvi_defaults`.
    posterior_mean
        Whether to add the cell's own evidence.

    Returns
    -------
    As :func:`scvi_defaults`.

    Raises
    ------
    ValueError
        As :func:`scvi_defaults`.

    Examples
    --------
    >>> from scgacl_scvi.datasets import demo
    >>> from scgacl_scvi.evaluate.baselines import scvi_nb
    >>> scvi_nb(demo().X[:50, :20], posterior_mean=True, max_epochs=1).shape
    (50, 20)
    """
    return scvi_nb_both(counts, seed=seed, **train)[int(posterior_mean)]


def scvi_nb_both(counts: Any, *, seed: int | None = None, **train: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both results of :func:`scvi_nb`, from one fit: the rates, and their posterior mean.

    Parameters
    ----------
    counts, seed, **train
        As for :func:`scvi_defaults`.

    Returns
    -------
    rates, posterior_mean
        Each as :func:`scvi_defaults` returns it.

    Raises
    ------
    ValueError
        As :func:`scvi_defaults`.
    """
    import torch

    from scgacl_scvi.module._posterior import shrunk_mean

    model, rates = _fit(counts, seed, {"gene_likelihood": "nb"}, {"early_stopping": True, **train})
    theta = model.module.px_r.detach().exp().cpu()
    x = _counts(counts)
    dense = torch.from_numpy(np.asarray(x.toarray() if sparse.issparse(x) else x, dtype=np.float32))
    return rates, shrunk_mean(dense, torch.from_numpy(rates), theta).numpy()


def _fit(counts: Any, seed: int | None, model_kwargs: dict, train_kwargs: dict) -> tuple["SCVI", np.ndarray]:
    counts = _counts(counts)
    filled = np.asarray(counts.sum(axis=1)).ravel() > 0
    if not filled.any():
        raise ValueError("counts: all entries are zero, so there is nothing to fit; pass counts above zero")
    from anndata import AnnData
    from scvi.model import SCVI

    with _scvi_seeded(resolve_seed(seed)):
        adata = AnnData(counts[filled].astype(np.float32))
        SCVI.setup_anndata(adata)
        model = SCVI(adata, **model_kwargs)
        model.train(**{"enable_progress_bar": False, **train_kwargs})
        found = model.get_normalized_expression(library_size="latent", n_samples=N_SAMPLES, return_numpy=True)
    rates = np.zeros(counts.shape, np.float32)
    rates[filled] = found
    return model, rates


@contextmanager
def _scvi_seeded(seed: int) -> Iterator[None]:
    """Every generator that scVI draws from seeded inside and as it was after; Lightning's hints not shown."""
    from scgacl_scvi._compat import scvi_seed, without_lightning_noise
    from scgacl_scvi.model._seed import seeded

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    numpy_state = np.random.get_state()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        np.random.seed(seed)
        with seeded(seed), scvi_seed(seed), without_lightning_noise():
            # Few batches in an epoch: that is the data's size, not a mistake.
            warnings.filterwarnings("ignore", message=".*logging interval.*")
            yield
    finally:
        np.random.set_state(numpy_state)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
