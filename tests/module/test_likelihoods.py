import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from torch.distributions import Normal

from scgacl_scvi.module import (
    masked_normal_log_likelihood,
    masked_squared_error,
    nb_log_likelihood,
    zinb_log_likelihood,
)
from scgacl_scvi.module._likelihoods import entry_log_prob


def _case(seed: int, cells: int = 7, genes: int = 11):
    generator = torch.Generator().manual_seed(seed)
    mu = torch.exp(torch.randn(cells, genes, generator=generator) * 2)
    theta = torch.exp(torch.randn(genes, generator=generator))
    x = torch.poisson(mu * torch.rand(cells, genes, generator=generator) * 2, generator=generator)
    logits = torch.randn(cells, genes, generator=generator) * 2
    return x, mu, theta, logits


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_nb_agrees_with_scvi_tools_and_with_scipy(seed):
    x, mu, theta, _ = _case(seed)
    ours = nb_log_likelihood(x, mu, theta)
    torch.testing.assert_close(ours, NegativeBinomial(mu=mu, theta=theta).log_prob(x).sum(-1), rtol=1e-4, atol=1e-3)
    p = (theta / (theta + mu)).double().numpy()
    oracle = stats.nbinom(theta.double().numpy()[None], p).logpmf(x.numpy()).sum(-1)
    np.testing.assert_allclose(ours.numpy(), oracle, rtol=1e-4, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_zinb_agrees_with_scvi_tools(seed):
    x, mu, theta, logits = _case(seed)
    oracle = ZeroInflatedNegativeBinomial(mu=mu, theta=theta, zi_logits=logits).log_prob(x).sum(-1)
    torch.testing.assert_close(zinb_log_likelihood(x, mu, theta, logits), oracle, rtol=1e-4, atol=2e-3)


def test_zinb_without_inflation_is_nb():
    x, mu, theta, logits = _case(0)
    torch.testing.assert_close(
        zinb_log_likelihood(x, mu, theta, torch.full_like(logits, -40.0)),
        nb_log_likelihood(x, mu, theta),
        rtol=1e-4,
        atol=1e-3,
    )


def test_nb_sums_to_one_over_counts():
    counts = torch.arange(4000.0)[:, None]
    total = nb_log_likelihood(counts, torch.full((4000, 1), 7.0), torch.tensor([0.6])).exp().sum()
    assert total.item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_gradients_agree_with_scvi_tools_and_are_finite_at_extremes(likelihood):
    x, mu, theta, logits = _case(3)
    x[0, 0], mu[0, 0] = 5000.0, 1e-9  # a count that the generator thinks impossible
    grads = []
    for ours in (True, False):
        m, t, z = (v.clone().requires_grad_() for v in (mu, theta, logits))
        if likelihood == "nb":
            value = nb_log_likelihood(x, m, t) if ours else NegativeBinomial(mu=m, theta=t).log_prob(x).sum(-1)
        elif ours:
            value = zinb_log_likelihood(x, m, t, z)
        else:
            value = ZeroInflatedNegativeBinomial(mu=m, theta=t, zi_logits=z).log_prob(x).sum(-1)
        value.sum().backward()
        grads.append((m.grad, t.grad))
    assert all(torch.isfinite(g).all() for g in grads[0])
    ordinary = torch.ones_like(mu, dtype=torch.bool)
    ordinary[0, 0] = False
    torch.testing.assert_close(grads[0][0][ordinary], grads[1][0][ordinary], rtol=1e-3, atol=1e-4)


def test_dispersion_may_differ_between_cells():
    x, mu, theta, _ = _case(1)
    by_cell = theta.expand_as(mu).contiguous()
    torch.testing.assert_close(nb_log_likelihood(x, mu, by_cell), nb_log_likelihood(x, mu, theta))


def test_normal_scores_observed_entries_only():
    x = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    mean, scale = torch.tensor([[9.0, 1.5, 2.0], [3.0, 3.0, 3.0]]), torch.tensor([1.0, 0.5, 2.0])
    expected = Normal(mean[0, 1:], scale[1:]).log_prob(x[0, 1:]).sum()
    torch.testing.assert_close(masked_normal_log_likelihood(x, mean, scale), torch.stack([expected, torch.tensor(0.0)]))


def test_published_error_averages_over_all_entries():
    x, mean = torch.tensor([[0.0, 1.0, 2.0, 0.0]]), torch.tensor([[5.0, 2.0, 4.0, 5.0]])
    torch.testing.assert_close(masked_squared_error(x, mean), torch.tensor([(1.0 + 4.0) / 4]))


def _dense_log_pmf(x, mu, theta, logits=None) -> np.ndarray:
    x, mu, theta = (value.double().numpy() for value in (x, mu, theta))
    pmf = stats.nbinom.pmf(x, theta, theta / (theta + mu))
    if logits is not None:
        p = 1 / (1 + np.exp(-logits.double().numpy()))
        pmf = p * (x == 0) + (1 - p) * pmf
    return np.log(pmf)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_only_visible_entries_count(seed, inflated):
    x, mu, theta, logits = _case(seed)
    x = x.clamp_max(60)  # the oracle's probabilities are not in logs
    visible = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    oracle = np.where(visible.numpy(), _dense_log_pmf(x, mu, theta, logits if inflated else None), 0.0).sum(-1)
    likelihood, extra = (zinb_log_likelihood, (logits,)) if inflated else (nb_log_likelihood, ())
    np.testing.assert_allclose(likelihood(x, mu, theta, *extra, visible).numpy(), oracle, rtol=1e-4, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_each_entry_has_the_log_probability_of_scipy(seed, inflated):
    x, mu, theta, logits = _case(seed)
    x = x.clamp_max(60)
    extra = (logits,) if inflated else ()
    found = entry_log_prob(x, mu, theta, *extra)
    assert found.shape == x.shape
    np.testing.assert_allclose(found.numpy(), _dense_log_pmf(x, mu, theta, *extra), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("inflated", [False, True])
def test_an_entry_that_is_not_visible_has_no_gradient(inflated):
    x, mu, theta, logits = _case(4)
    visible = torch.arange(x.numel()).reshape(x.shape) % 3 > 0
    mu, logits = mu.requires_grad_(), logits.requires_grad_()
    if inflated:
        zinb_log_likelihood(x, mu, theta, logits, visible).sum().backward()
        assert (logits.grad[~visible] == 0).all()
    else:
        nb_log_likelihood(x, mu, theta, visible).sum().backward()
    assert (mu.grad[~visible] == 0).all()
    assert (mu.grad[visible] != 0).any()


@pytest.mark.parametrize("inflated", [False, True])
@pytest.mark.parametrize("by_cell", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_written_gradients_are_those_of_finite_differences(inflated, by_cell, masked):
    x, mu, theta, logits = (value.double() for value in _case(5, cells=4, genes=6))
    theta = theta.expand_as(mu).contiguous() if by_cell else theta
    visible = torch.arange(x.numel()).reshape(x.shape) % 4 > 0 if masked else None
    arguments = (mu, theta, logits) if inflated else (mu, theta)
    likelihood = zinb_log_likelihood if inflated else nb_log_likelihood
    arguments = tuple(value.requires_grad_() for value in arguments)
    assert torch.autograd.gradcheck(lambda *values: likelihood(x, *values, visible), arguments)


@pytest.mark.parametrize("inflated", [False, True])
def test_gradients_in_single_precision_agree_with_those_in_double(inflated):
    case = _case(6, cells=30, genes=50)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        x, *arguments = (value.detach().to(dtype) for value in case)
        arguments = [value.requires_grad_() for value in (arguments if inflated else arguments[:2])]
        (zinb_log_likelihood if inflated else nb_log_likelihood)(x, *arguments).sum().backward()
        gradients.append([value.grad.double() for value in arguments])
    for single, double in zip(*gradients, strict=True):
        assert ((single - double).abs() <= 1e-4 * double.abs() + 1e-3 * double.abs().mean()).all()
