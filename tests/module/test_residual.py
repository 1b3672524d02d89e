"""The mixture around a gene's mean, against integrals done numerically and simulated expression."""

import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scgacl_scvi import SCGACL
from scgacl_scvi.datasets import simulate_null
from scgacl_scvi.evaluate import null_correlation
from scgacl_scvi.module import _residual
from scgacl_scvi.module._residual import LOG_RATIO, SHAPE, ResidualMixture
from scgacl_scvi.train._residual_fit import _classes, _of_gamma, _weights

GRID = np.exp(np.linspace(-150, 10, 80_001))


def _log_prior(weights: np.ndarray, mean: float, theta: float) -> np.ndarray:
    """Log density of the expression on the grid; logs, since far from the mean it is below the smallest number."""
    parts = [np.log(weights[0]) + stats.gamma.logpdf(GRID, theta, scale=mean / theta)]
    for weight, ratio in zip(weights[1:], LOG_RATIO.exp().tolist(), strict=True):
        parts.append(np.log(weight) + stats.gamma.logpdf(GRID, SHAPE, scale=mean * ratio / SHAPE))
    return np.logaddexp.reduce(parts)


def _mixture(weights: np.ndarray) -> ResidualMixture:
    mixture = ResidualMixture(weights.shape[1])
    mixture.log_weight.copy_(torch.as_tensor(weights).log())
    mixture.fitted.fill_(True)
    return mixture


def _weights_of(seed: int, n_genes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(1 + len(LOG_RATIO), 0.3), n_genes).T + 1e-12


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 99), st.floats(0.01, 300.0), st.floats(0.1, 100.0), st.one_of(st.just(0.0), st.floats(0.1, 400.0))
)
def test_the_posterior_has_the_mean_and_the_variance_of_bayes_rule(seed, mean, theta, x):
    weights = _weights_of(seed, 1)
    density = _posterior_on_grid(weights[:, 0], mean, theta, x)
    expected = (density * GRID).sum()
    variance = (density * GRID**2).sum() - expected**2
    shape, value = _mixture(weights).posterior(*(torch.tensor([[v]]) for v in (x, mean, theta)))
    assert value.item() == pytest.approx(expected, rel=2e-3, abs=1e-6)
    assert shape.item() == pytest.approx(expected**2 / variance, rel=2e-2)


def test_without_a_fit_it_is_the_gamma():
    x, mean = torch.tensor([[0.0, 3.0], [2.0, 0.0]]), torch.tensor([[1.0, 2.0], [0.3, 5.0]])
    theta, unfitted = torch.tensor([2.0, 0.5]), ResidualMixture(2)
    gamma = x + theta, (x + theta) / (mean + theta) * mean
    for found, expected in zip(unfitted.posterior(x, mean, theta), gamma, strict=True):
        torch.testing.assert_close(found, expected)
    index = torch.tensor([0, 3])
    for found, expected in zip(unfitted.behind_zeros(mean, theta, index), gamma, strict=True):
        torch.testing.assert_close(found, expected.reshape(-1)[index])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(1, 40), st.booleans())
def test_zeros_asked_for_alone_have_the_bits_they_have_among_all(seed, n_cells, of_batches):
    rng = np.random.default_rng(seed)
    shape = n_cells, 7
    x = torch.as_tensor(rng.poisson(0.7, shape), dtype=torch.float32)
    mean = torch.as_tensor(rng.gamma(0.5, 2.0, shape), dtype=torch.float32)
    theta = torch.as_tensor(rng.gamma(1.0, 2.0, shape if of_batches else 7), dtype=torch.float32)
    mixture = _mixture(_weights_of(seed, 7))
    index = torch.as_tensor(rng.permutation(np.flatnonzero(x.numpy() == 0)))
    whole, some = mixture.posterior(x, mean, theta), mixture.behind_zeros(mean, theta, index)
    for every, found in zip(whole, some, strict=True):
        assert torch.equal(found, every.reshape(-1)[index])


def _posterior_on_grid(weights: np.ndarray, mean: float, theta: float, x: float) -> np.ndarray:
    log_density = _log_prior(weights, mean, theta) + x * np.log(GRID) - GRID + np.log(GRID)
    density = np.exp(log_density - log_density.max())
    return density / density.sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.floats(1e-8, 50.0), st.floats(0.1, 30.0), st.floats(0.1, 5.0))
def test_a_zero_shows_a_count_next_time_with_the_probability_of_bayes_rule(seed, mean, theta, more):
    weights = _weights_of(seed, 3)
    first = torch.full((2, 3), mean)
    found = _mixture(weights).shown_again(first, first * more, torch.tensor([theta] * 3))
    for gene in range(3):
        density = _posterior_on_grid(weights[:, gene], mean, theta, 0)
        assert found[1, gene].item() == pytest.approx((density * -np.expm1(-GRID * more)).sum(), rel=2e-3)
    alone = stats.nbinom(theta, (mean + theta) / (mean * (1 + more) + theta)).sf(0)
    for value in ResidualMixture(3).shown_again(first, first * more, torch.tensor([theta] * 3)).ravel().tolist():
        assert value == pytest.approx(alone, rel=1e-4)


def test_asked_for_alone_an_entry_has_the_same_probability_to_show_a_count():
    rng = np.random.default_rng(0)
    mean, more = (torch.as_tensor(rng.gamma(0.5, 2.0, (20, 7)), dtype=torch.float32) for _ in range(2))
    theta = torch.as_tensor(rng.gamma(1.0, 2.0, (20, 7)), dtype=torch.float32)
    index = torch.as_tensor(rng.permutation(140)[:33])
    for mixture in (_mixture(_weights_of(0, 7)), ResidualMixture(7)):
        whole, some = mixture.shown_again(mean, more, theta), mixture.shown_again(mean, more, theta, index)
        assert torch.equal(some, whole.reshape(-1)[index])


def test_draws_of_components_have_the_distribution_of_the_posterior_also_where_it_is_on_or_off():
    weights = np.full((1 + len(LOG_RATIO), 3), 1e-6)
    weights[[5, 10], 0] = 0.9, 0.1  # next to off, or twice the mean
    weights[[0, 7], 1] = 0.4, 0.6
    weights[:, 2] = _weights_of(5, 1)[:, 0]
    weights /= weights.sum(0)
    rng, n = torch.Generator().manual_seed(0), 40_000
    counts = torch.tensor([0.0, 1.0, 6.0])
    x = torch.stack([counts.roll(k) for k in range(3)]).repeat(n, 1)  # each gene shows each count in turn
    mean, theta = torch.tensor([1.0, 0.3, 2.0]), torch.tensor([2.0, 0.7, 5.0])
    shape, value = _mixture(weights).drawn(x, mean.expand_as(x), theta, rng)
    drawn = (torch._standard_gamma(shape, generator=rng) * value / shape).numpy()
    for gene in range(3):
        for count in counts.tolist():
            density = _posterior_on_grid(weights[:, gene], mean[gene].item(), theta[gene].item(), count)
            own = drawn[x[:, gene].numpy() == count, gene]
            for function in (lambda g: g, lambda g: np.exp(-g), np.log1p):
                expected, spread = (density * function(GRID)).sum(), function(own).std()
                assert function(own).mean() == pytest.approx(expected, rel=2e-3, abs=5 * spread / np.sqrt(n))


def test_no_component_is_drawn_that_has_no_probability():
    weights = np.zeros((1 + len(LOG_RATIO), 1))
    weights[2] = 1.0
    highest = torch.Generator().manual_seed(0)
    for x in (0.0, 4.0):
        entries = torch.full((200_000, 1), x), torch.ones(200_000, 1), torch.tensor([2.0])
        shape, value = _mixture(weights).drawn(*entries, highest)
        expected = (x + SHAPE) / (LOG_RATIO[1].exp() + SHAPE) * LOG_RATIO[1].exp()
        assert (shape == x + SHAPE).all()
        torch.testing.assert_close(value, expected.expand_as(value))


def test_a_zero_never_has_more_expression_than_before_it_was_seen():
    rng = np.random.default_rng(0)
    mixture = _mixture(_weights_of(4, 6))
    mean = torch.as_tensor(np.geomspace(1e-6, 1e3, 300)[:, None] * np.ones(6), dtype=torch.float32)
    _, value = mixture.posterior(torch.zeros_like(mean), mean, torch.as_tensor(rng.gamma(1.0, 2.0, 6)).float())
    assert (value <= 1.0001 * mixture.mean_ratio * mean).all()
    mixture.fitted.fill_(False)  # as a second training does at its start
    assert (mixture.mean_ratio == 1).all()


def test_tiny_means_and_huge_counts_keep_a_shape():
    x = torch.tensor([[0.0, 0.0, 1e5, 3e6, 2.0]])
    mean = torch.tensor([[1e-28, 1e-16, 9e4, 1.0, 1e-20]])
    shape, value = _mixture(_weights_of(3, 5)).posterior(x, mean, torch.full((5,), 2.0))
    assert torch.isfinite(shape).all() & torch.isfinite(value).all()
    assert (shape > 0).all()
    assert shape[0, 2] == pytest.approx(1e5, rel=0.01)


def test_blocks_and_dispersions_of_batches_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.poisson(0.7, (50, 9)), dtype=torch.float32)
    mean, theta = torch.as_tensor(rng.gamma(1.0, 1.0, (50, 9)), dtype=torch.float32), torch.linspace(0.3, 9.0, 9)
    mixture = _mixture(_weights_of(2, 9))
    whole = mixture.posterior(x, mean, theta)
    monkeypatch.setattr(_residual, "_ENTRIES", 20)
    monkeypatch.setattr(_residual, "_COUNTS", 64)
    for found, expected in zip(mixture.posterior(x, mean, theta.expand(50, 9)), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def _fit(x: np.ndarray, mean: np.ndarray, theta: float) -> ResidualMixture:
    """Mixture of one gene from its counts and their means."""
    counts, log_mean = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(np.log(mean), dtype=torch.float32)
    gene, n, of = torch.zeros(len(x), dtype=torch.int64), torch.ones(len(x)), torch.tensor([theta])
    return _mixture(_weights(gene, log_mean, of.log().expand(len(x)), counts, n, _of_gamma(of)).exp().numpy())


def test_a_gene_that_is_on_in_some_cells_is_found_to_be_and_counts_then_say_more():
    rng = np.random.default_rng(0)
    depth = rng.lognormal(0, 0.4, 2000)
    on = rng.random(2000) < 0.05
    x = rng.poisson(depth * np.where(on, 8.0, 0.05))
    mean = depth * x.sum() / depth.sum()
    mixture = _fit(x, mean, 0.3)
    arguments = torch.tensor([[0.0], [1.0], [8.0]]), torch.full((3, 1), float(x.sum() / depth.sum()))
    _, value = mixture.posterior(*arguments, torch.tensor([0.3]))
    best = [(0.95 * np.exp(-0.05) * 0.05 ** (k + 1) + 0.05 * np.exp(-8) * 8.0 ** (k + 1)) for k in (0, 1, 8)]
    best = np.array(best) / [(0.95 * np.exp(-0.05) * 0.05**k + 0.05 * np.exp(-8) * 8.0**k) for k in (0, 1, 8)]
    of_gamma = (arguments[0] + 0.3) / (arguments[1] + 0.3) * arguments[1]
    error, error_of_gamma = (np.abs(np.log(v[:, 0].numpy() / best)) for v in (value, of_gamma))
    assert (error[[0, 2]] < 0.2).all()
    assert error.sum() < error_of_gamma.sum() / 1.5


@pytest.mark.parametrize("theta", [0.5, 3.0, 50.0])
def test_where_the_gamma_is_right_it_stays(theta):
    rng = np.random.default_rng(1)
    mean = rng.lognormal(0, 0.4, 3000) * 2.0
    mixture = _fit(rng.poisson(rng.gamma(theta, mean / theta)), mean, theta)
    x, at = torch.arange(9.0)[:, None], torch.full((9, 1), 2.0)
    _, value = mixture.posterior(x, at, torch.tensor([theta]))
    np.testing.assert_allclose(value, (x + theta) / (at + theta) * at, rtol=0.2)


@pytest.fixture(scope="module")
def model() -> SCGACL:
    adata = simulate_null(400, 60, seed=0)
    scvi.settings._seed = 0
    SCGACL.setup_anndata(adata)
    fitted = SCGACL(adata, gene_likelihood="nb", n_latent=4, n_hidden=32, n_hidden_discriminator=16)
    fitted.train(pretrain_epochs=6, vade_epochs=4, joint_epochs=3, batch_size=32, enable_progress_bar=False)
    return fitted


def test_classes_hold_every_entry_once_and_every_count(model):
    with torch.no_grad():
        gene, log_mean, log_theta, count, n = _classes(
            model.module, model._make_data_loader(adata=model.adata, batch_size=64)
        )
    x = model.adata.X.toarray() if hasattr(model.adata.X, "toarray") else model.adata.X
    assert n.sum() == x.size
    np.testing.assert_allclose(np.bincount(gene, n * count, x.shape[1]), x.sum(0), rtol=1e-5)
    assert (np.diff(gene) >= 0).all()
    assert np.isfinite(log_mean).all()
    np.testing.assert_allclose(
        log_theta, (model.module.theta.log() + model.module.gate.log_theta_ratio).detach()[gene], rtol=1e-3, atol=1e-3
    )


def test_a_fit_has_weights_that_sum_to_one_and_invents_no_correlation(model):
    assert model.module.residual.fitted
    torch.testing.assert_close(model.module.residual.log_weight.exp().sum(0), torch.ones(60), rtol=1e-3, atol=1e-3)
    values = model.get_imputed_expression(policy="denoise", return_numpy=True, layer_key=None)
    assert null_correlation(values, model.adata.var["differential"].to_numpy()).false_share < 0.05


def test_the_mixture_comes_back_from_disk_and_other_likelihoods_have_none(model, tmp_path):
    model.save(tmp_path / "model", save_anndata=True)
    loaded = SCGACL.load(tmp_path / "model")
    assert torch.equal(loaded.module.residual.log_weight, model.module.residual.log_weight)
    for likelihood in ("zinb", "normal"):
        adata = AnnData(model.adata.X)
        SCGACL.setup_anndata(adata)
        other = SCGACL(adata, gene_likelihood=likelihood, n_hidden=16, n_hidden_discriminator=16)
        other.train(max_epochs=3, enable_progress_bar=False)
        assert not other.module.residual.fitted
