"""The vectorised fit against a slow one, written gene by gene and cell by cell from the mathematics."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import brentq
from scipy.special import digamma
from scipy.stats import gamma, norm

from scgacl_scvi.dropout import FitStatus, fit_gamma_normal

NAMES = ("rate", "alpha", "beta", "mu", "sigma")


def oracle_em(x):
    """Parameters and probability of each cell to be a dropout, for the values of one gene in the cells of one label."""
    if (x == 0).mean() > 0.95 or np.log(1.01 + x).mean() - np.log(1.01) < 0.01:
        return None, np.zeros(x.size)
    v = np.log(1.01 + x)
    nonzero = v[x > 0]
    rate = (x == 0).mean() or 0.01
    alpha, beta, mu, sigma = 1.5, 1.0, nonzero.mean(), max(nonzero.std(), 0.01)

    def expectation():
        log_gamma = np.log(rate) + gamma.logpdf(v, alpha, scale=1 / beta)
        log_normal = np.log1p(-rate) + norm.logpdf(v, mu, sigma)
        log_sum = np.logaddexp(log_gamma, log_normal)
        return np.exp(log_gamma - log_sum), np.exp(log_normal - log_sum), log_sum.sum() / np.log(10)

    w, rest, likelihood = expectation()
    for _ in range(100):
        rate = w.mean()
        mu = np.average(v, weights=rest)
        sigma = max(np.sqrt(np.average((v - mu) ** 2, weights=rest)), 0.01)
        mean = np.average(v, weights=w)
        alpha = oracle_alpha(np.log(mean) - np.average(np.log(v), weights=w))
        beta = alpha / mean
        old = likelihood
        w, rest, likelihood = expectation()
        if (likelihood - old) ** 2 <= 0.5:
            break
    return (rate, alpha, beta, mu, sigma), w


def oracle_alpha(v):
    if v <= 0 or (3 - v + np.sqrt((v - 3) ** 2 + 24 * v)) / (12 * v) >= 20:
        return 20.0
    return brentq(lambda a: np.log(a) - digamma(a) - v, 1e-6, 40, xtol=1e-13)


def assert_agrees_with_oracle(x, labels):
    dense = x.toarray().astype(float)
    fit = fit_gamma_normal(x, labels)
    probability = fit.zero_probability()
    decisions = fit.dropout_mask(x, labels).toarray()
    same, n_fitted = np.zeros(dense.shape, dtype=bool), 0
    for label in range(labels.max() + 1):
        cells = labels == label
        for gene in range(dense.shape[1]):
            values = dense[cells, gene]
            parameters, w = oracle_em(values)
            same[cells, gene] = decisions[cells, gene] == ((values == 0) & (w >= 0.5))
            assert (parameters is not None) == (fit.status[label, gene] == FitStatus.FITTED)
            if parameters is None:
                assert probability[label, gene] == 0
                continue
            n_fitted += 1
            ours = [getattr(fit, name)[label, gene] for name in NAMES]
            np.testing.assert_allclose(ours, parameters, rtol=1e-4, atol=1e-12, err_msg=f"{label=} {gene=}")
            np.testing.assert_allclose(probability[label, gene], w[values == 0], rtol=1e-4, atol=1e-9)
    assert same.mean() >= 0.999
    return n_fitted


@pytest.mark.parametrize("scale", ["counts", "lognorm"])
def test_agrees_with_oracle_on_random_counts(scale):
    rng = np.random.default_rng(1)
    n_cells, n_genes = 180, 120
    labels = rng.integers(0, 3, n_cells)
    mean = rng.lognormal(0.5, 1.5, (3, n_genes))
    x = rng.negative_binomial(2, 2 / (2 + mean[labels])) * (rng.random((n_cells, n_genes)) > rng.random(n_genes))
    if scale == "lognorm":
        x = np.log1p(x / x.sum(1, keepdims=True) * 500)
    assert assert_agrees_with_oracle(sparse.csr_matrix(x), labels) > 150


def test_agrees_with_oracle_where_zeros_are_in_doubt():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 10, 400)
    x = rng.poisson(rng.lognormal(0.5, 0.8, 100) * rng.gamma(5, 1 / 5, (400, 100)))
    assert_agrees_with_oracle(sparse.csr_matrix(x), labels)
    probability = fit_gamma_normal(x, labels).zero_probability()
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1)):
        assert ((probability > low) & (probability < high)).any()


@pytest.mark.parametrize(
    ("name", "scale"),
    [("sim_scgacl_groups3", "counts"), ("sim_scgacl_groups3", "lognorm"), ("scmix_sc_celseq2", "counts")],
)
def test_agrees_with_oracle_on_evaluation_data(name, scale):
    folder = os.environ.get("SCGACL_DATA")
    if not folder:
        pytest.skip("SCGACL_DATA is not set: it names the folder with the evaluation data")
    anndata = pytest.importorskip("anndata")
    adata = anndata.read_h5ad(Path(folder) / f"{name}.h5ad")
    x = sparse.csr_matrix(adata.X, dtype=np.float64)
    if scale == "lognorm":
        library = x.sum(axis=1).A1
        x = x.multiply(np.median(library) / library[:, None]).log1p().tocsr()
    detected = np.argsort(-x.getnnz(axis=0), kind="stable")[: min(10_000, x.shape[1])]
    genes = detected[:: max(1, detected.size // 60)]  # from the most to the least detected
    labels = adata.obs["cell_type"].astype("category").cat.codes.to_numpy()
    assert assert_agrees_with_oracle(x[:, genes], labels) > 50
