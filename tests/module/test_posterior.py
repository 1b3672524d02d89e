"""The closed forms against integrals over the gamma distribution, done numerically."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from scgacl_scvi.module._posterior import (
    dropout_probability,
    heldout_log_density,
    posterior_log1p,
    shrunk_mean,
)

counts = st.integers(0, 40)
means = st.floats(0.01, 60.0)
thetas = st.floats(0.2, 30.0)


def _t(*values):
    return [torch.tensor([[float(v)]], dtype=torch.float64) for v in values]


def _expect(function, shape, rate):
    """E[function(g)] for g ~ Gamma(shape, rate), by quadrature over its quantiles."""
    gamma = stats.gamma(shape, scale=1 / rate)
    return integrate.quad(lambda q: function(gamma.ppf(q)), 0, 1, limit=200)[0]


@settings(max_examples=40, deadline=None)
@given(counts, means, thetas)
def test_posterior_mean_is_the_mean_of_the_gamma_posterior(x, mu, theta):
    expected = stats.gamma(x + theta, scale=1 / (theta / mu + 1)).mean()
    assert shrunk_mean(*_t(x, mu, theta)).item() == pytest.approx(expected, rel=1e-10)


@settings(max_examples=40, deadline=None)
@given(means, thetas, st.floats(-6, 6))
def test_dropout_probability_is_bayes_rule(mu, theta, logit):
    pi, zero = 1 / (1 + np.exp(-logit)), stats.nbinom(theta, theta / (theta + mu)).pmf(0)
    assert dropout_probability(*_t(mu, theta, logit)).item() == pytest.approx(pi / (pi + (1 - pi) * zero), rel=1e-8)


@settings(max_examples=25, deadline=None)
@given(counts, means, thetas)
def test_posterior_log1p_is_the_mean_of_the_log(x, mu, theta):
    expected = _expect(np.log1p, x + theta, theta / mu + 1)
    assert posterior_log1p(*_t(x, mu, theta)).item() == pytest.approx(expected, rel=2e-3, abs=2e-4)


@settings(max_examples=25, deadline=None)
@given(counts, means, thetas, st.floats(0.01, 0.99))
def test_heldout_density_sums_to_one_with_and_without_dropout(x, mu, theta, p):
    test = torch.arange(600.0, dtype=torch.float64)[:, None]
    x, mu, theta, p = (value.expand(600, 1) for value in _t(x, mu, theta, p))
    for p_dropout in (None, p):
        total = heldout_log_density(test, x, mu, theta, 0.1 / 0.9, p_dropout).exp().sum()
        assert total.item() == pytest.approx(1.0, abs=1e-4)


def test_heldout_density_is_that_of_thinned_counts():
    """Simulate expression, thin, and compare frequencies of (held out | seen) with the density."""
    rng = np.random.default_rng(0)
    mu, theta, fraction = 6.0, 1.5, 0.3
    counts = rng.poisson(rng.gamma(theta, mu / theta, 400_000))
    test = rng.binomial(counts, fraction)
    seen = counts - test
    for x in (0, 2, 5):
        frequency = np.bincount(test[seen == x], minlength=4)[:4] / (seen == x).sum()
        t = torch.arange(4.0, dtype=torch.float64)[:, None]
        expanded = [value.expand(4, 1) for value in _t(x, mu * (1 - fraction), theta)]
        ours = heldout_log_density(t, *expanded, fraction / (1 - fraction)).exp().numpy()
        np.testing.assert_allclose(ours, frequency, atol=0.01)


@pytest.mark.parametrize("depth", [0.1, 2.0])
def test_the_mean_log_of_a_new_count_is_that_of_its_negative_binomial(depth):
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.poisson(1.0, (3, 40)), dtype=torch.float64)
    mu, theta = torch.as_tensor(rng.gamma(1.0, 3.0, (3, 40))), torch.as_tensor(rng.gamma(2.0, 1.0, 40) + 0.1)
    factor = torch.tensor([[0.5], [20.0], [400.0]], dtype=torch.float64)  # to the normalised scale, by cell
    found = posterior_log1p(x, mu, theta, factor=factor, unit=factor / depth).numpy()
    shape = (x + theta).numpy()
    mean = depth * ((x + theta) / (mu + theta) * mu).numpy()
    count = np.arange(2000)[:, None, None]
    chance = stats.nbinom.pmf(count, shape, shape / (shape + mean))
    np.testing.assert_allclose(found, (chance * np.log1p(factor.numpy() / depth * count)).sum(0), atol=1e-4)
    expression = posterior_log1p(x, mu, theta, factor=factor).numpy()
    assert (found < expression).all()
