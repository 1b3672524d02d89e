"""A gene that keeps its own mean has the dispersion of its counts around that, not around the generator's mean."""

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import stats

from scgacl_scvi import SCGACL
from scgacl_scvi.train._own_dispersion import _COARSE, _log_likelihoods, _log_theta

SMALL = {"n_latent": 4, "n_hidden": 32, "n_hidden_discriminator": 16}
FAST = {"pretrain_epochs": 6, "vade_epochs": 4, "joint_epochs": 3, "batch_size": 32, "enable_progress_bar": False}


def _grid_log_likelihood(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    thetas = np.exp(_COARSE)[:, None, None]
    return stats.nbinom.logpmf(x, thetas, thetas / (thetas + mean)).sum(1)


def test_dispersion_is_the_posterior_mean_of_its_inverse():
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.2, 5.0, 60)[:, None]
    x = rng.poisson(rng.gamma(2.0, mean / 2.0, (60, 1)))
    found = _log_theta(_grid_log_likelihood(x, mean), start=0.3)[0]

    # By quadrature on another grid, the centre by the same fixed point: one gene and the start.
    grid = np.linspace(-12.0, 16.0, 20001)
    log_p = stats.nbinom.logpmf(x, np.exp(grid), 1 / (1 + mean * np.exp(-grid))).sum(0)
    centre = 0.3
    for _ in range(200):
        posterior = np.exp(log_p - log_p.max() - (grid - centre) ** 2 / 2)
        posterior /= posterior.sum()
        centre = (grid @ posterior + 0.3) / 2
    assert found == pytest.approx(-np.log(np.exp(-grid) @ posterior), abs=0.01)


def test_dispersions_are_found_where_counts_tell_and_drawn_to_the_others_where_not():
    rng = np.random.default_rng(1)
    theta = np.where(np.arange(80) < 40, 0.5, 8.0)
    mean = np.full((800, 80), 3.0)
    mean[:, 60:] = 0.005  # these say nothing
    x = rng.poisson(rng.gamma(theta, mean / theta))
    found = _log_theta(_grid_log_likelihood(x, mean), start=0.0)
    np.testing.assert_allclose(found[:40], np.log(0.5), atol=0.3)
    np.testing.assert_allclose(found[40:60].mean(), np.log(8.0), atol=0.4)
    assert (np.abs(found[60:] - np.median(found)) < 1.5).all()
    assert found[60:].std() < 0.5


def _rare_marker(seed: int = 0) -> AnnData:
    """Independent genes; in ten of 400 cells the first is 20-fold up, which nothing else could tell."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.5, 3.0, (1, 30)).repeat(400, 0)
    mean[:, 0] = 0.4
    mean[:10, 0] = 8.0
    return AnnData(rng.poisson(rng.gamma(10.0, mean / 10.0)).astype(np.float32))


@pytest.fixture(scope="module")
def model() -> SCGACL:
    adata = _rare_marker()
    SCGACL.setup_anndata(adata)
    fitted = SCGACL(adata, gene_likelihood="nb", **SMALL)
    fitted.train(**FAST)
    return fitted


def _own(module) -> torch.Tensor:
    return (module.theta.log() + module.gate.log_theta_ratio).detach()


def test_genes_that_keep_their_mean_have_a_dispersion_of_their_own_and_only_they(model):
    gate = model.module.gate
    assert gate.keeps_own_mean.sum() > 20
    assert torch.equal(gate.keeps_own_mean, gate.log_theta_ratio != 0)
    assert gate.keeps_own_mean[0]
    assert _own(model.module)[0] < _own(model.module)[1:].median() - 1.0


def test_counts_that_the_mean_does_not_explain_weigh_more_for_it(model):
    gate = model.module.gate
    learnt = gate.log_theta_ratio.clone()
    model.module.residual.fitted.fill_(False)  # a mixture would make up for most of it
    kept = np.expm1(model.get_imputed_expression(policy="denoise", return_numpy=True))[:, 0]
    gate.log_theta_ratio.zero_()
    try:
        before = np.expm1(model.get_imputed_expression(policy="denoise", return_numpy=True))[:, 0]
    finally:
        gate.log_theta_ratio.copy_(learnt)
        model.module.residual.fitted.fill_(True)
    fold = [np.log(values[:10].mean() / values[10:].mean()) for values in (before, kept)]
    assert fold[1] > fold[0] + 0.15
    assert fold[1] < np.log(20)


def test_dispersions_come_back_from_disk_and_are_gone_after_a_reset(model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCGACL.load(tmp_path / "model")
    assert torch.equal(loaded.module.gate.log_theta_ratio, model.module.gate.log_theta_ratio)
    loaded.module.gate.reset()
    assert not loaded.module.gate.log_theta_ratio.any()


def _of_noisy_batch(seed: int) -> AnnData:
    """Independent genes, overdispersed in one of two batches."""
    rng = np.random.default_rng(seed)
    noisy = np.arange(300) % 2 == 0
    shape = np.where(noisy, 0.5, 20.0)[:, None]
    adata = AnnData(rng.poisson(rng.gamma(shape, rng.uniform(1.0, 4.0, 30) / shape)).astype(np.float32))
    adata.obs["batch"] = np.where(noisy, "noisy", "even")
    return adata


@pytest.fixture(scope="module")
def by_batch() -> SCGACL:
    adata = _of_noisy_batch(1)
    SCGACL.setup_anndata(adata, batch_key="batch")
    fitted = SCGACL(adata, gene_likelihood="nb", dispersion="gene-batch", **SMALL)
    fitted.train(**FAST | {"pretrain_epochs": 20, "pretrain_lr": 5e-3})
    return fitted


def _predicted(model: SCGACL) -> tuple[np.ndarray, np.ndarray]:
    """Means and inverse dispersions that the getters take, cells x genes."""
    module = model.module.eval()
    tensors = next(iter(model._make_data_loader(adata=model.adata, batch_size=model.adata.n_obs)))
    with torch.no_grad():
        inferred = module.encode(**module._get_inference_input(tensors))
        inferred["z"] = inferred["qz"].loc
        own = module.predict(tensors, inferred)
    return own["rate"].double().numpy(), own["theta"].double().expand_as(own["rate"]).numpy()


@pytest.mark.parametrize("batched", [False, True])
def test_likelihoods_are_those_of_the_counts_around_the_means_of_the_getters(model, by_batch, batched):
    fitted = by_batch if batched else model
    module, x = fitted.module, fitted.adata.X.astype(float)
    genes = torch.nonzero(module.gate.keeps_own_mean).squeeze(-1)
    loader = fitted._make_data_loader(adata=fitted.adata, batch_size=128)
    found = _log_likelihoods(module, loader, genes, 1)
    rate, _ = _predicted(fitted)
    assert len(genes) > 15
    expected = []
    for point in np.exp(_COARSE):
        log_p = stats.nbinom.logpmf(x, point, point / (point + rate))
        expected.append(log_p[:, genes].sum(0))
    np.testing.assert_allclose(found - found[0], np.array(expected) - expected[0], rtol=1e-4, atol=0.05)


def test_what_zeros_add_is_as_good_from_some_cells(model):
    loader = model._make_data_loader(adata=model.adata, batch_size=128)
    genes = torch.nonzero(model.module.gate.keeps_own_mean).squeeze(-1)
    every, third = (_log_theta(_log_likelihoods(model.module, loader, genes, k), 1.0) for k in (1, 3))
    np.testing.assert_allclose(third, every, atol=0.5)
    assert not np.array_equal(third, every)


def test_independent_genes_do_not_correlate_through_a_noisier_batch(by_batch):
    module = by_batch.module
    kept = module.gate.keeps_own_mean.numpy()
    assert kept.sum() > 15
    even, noisy = module.log_theta.detach().numpy()  # in alphabetical order
    assert (even > noisy + 0.4).mean() > 0.9  # it was learnt that one batch is noisier
    _, theta = _predicted(by_batch)
    assert not np.ptp(theta[:, kept], axis=0).any()
    values = by_batch.get_imputed_expression(policy="denoise", return_numpy=True, layer_key=None)[:, kept]
    assert np.abs(np.corrcoef(values.T) - np.eye(kept.sum())).max() < 0.3


def test_other_likelihoods_and_fits_without_a_gate_have_none():
    adata = _rare_marker(2)
    SCGACL.setup_anndata(adata)
    for likelihood, gated in (("zinb", True), ("nb", False)):
        fitted = SCGACL(adata, gene_likelihood=likelihood, **SMALL)
        fitted.train(**FAST, gate_genes=gated)
        assert not fitted.module.gate.log_theta_ratio.any()
