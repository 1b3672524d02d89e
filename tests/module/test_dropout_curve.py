"""The dropout curve against integrals done numerically, and its fit against simulated expression."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.interpolate import RegularGridInterpolator

from scgacl_scvi.module._dropout_curve import LOG_MEAN, LOG_SHAPE, DropoutCurve, look_up
from scgacl_scvi.module._dropout_fit import fit_dropout_curve, log_likelihood

means, thetas = st.floats(0.05, 200.0), st.floats(0.2, 30.0)
intercepts, slopes = st.floats(-3.0, 4.0), st.floats(-3.0, 1.0)


def curve_of(a: float, b: float, theta: float, factor: float = 1.0) -> DropoutCurve:
    curve = DropoutCurve(1)
    curve.coefficients.copy_(torch.tensor([a, b]))
    curve.log_theta.fill_(np.log(theta))
    curve.log_factor.fill_(np.log(factor))
    curve.fitted.fill_(True)
    return curve


def lost(expression, a, b):
    return 1 / (1 + np.exp(-(a + b * np.log(expression))))


def expect(function, theta, mean):
    """E[function(lambda)] for lambda ~ Gamma(mean, theta), by quadrature over its quantiles."""
    gamma = stats.gamma(theta, scale=mean / theta)
    # No more digits than are asked for: quantiles near 1 have not as many, and scipy warns.
    return integrate.quad(lambda q: function(gamma.ppf(q)), 0, 1, limit=300, epsrel=1e-5)[0]


def shown(expression):
    return -np.expm1(-expression)


@settings(max_examples=15, deadline=None)
@given(means, thetas, intercepts, slopes)
def test_probability_that_a_zero_hides_a_count_is_bayes_rule(mean, theta, a, b):
    hidden = expect(lambda g: shown(g) * lost(g, a, b), theta, mean)
    seen = expect(lambda g: shown(g) * (1 - lost(g, a, b)), theta, mean)
    ours = curve_of(a, b, theta).hidden_probability(torch.tensor([[mean]])).item()
    if 1 - seen > 1e-3:  # a zero that all but never happens
        assert ours == pytest.approx(hidden / (1 - seen), abs=0.02)


@settings(max_examples=15, deadline=None)
@example(113.0, 5.0, -1.0, -0.40625)
@given(means, thetas, intercepts, slopes)
def test_mean_variance_and_log_behind_a_zero_are_those_of_the_posterior(mean, theta, a, b):
    def zero(g):
        return 1 - shown(g) * (1 - lost(g, a, b))

    total = expect(zero, theta, mean)
    if total < 1e-2:
        return
    first, second, log = (
        expect(lambda g, f=f: f(g) * zero(g), theta, mean) / total for f in (lambda g: g, np.square, np.log1p)
    )
    curve, mu = curve_of(a, b, theta), torch.tensor([[mean]])
    ours, variance = curve.zero_moments(mu)
    assert ours.item() == pytest.approx(first, rel=0.03, abs=1e-3)
    assert variance.item() == pytest.approx(second - first**2, rel=0.1, abs=2e-3)
    assert curve.zero_log1p(mu, 1.0).item() == pytest.approx(log, rel=0.03, abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 50.0), thetas, intercepts, slopes)
def test_the_lost_count_is_that_of_a_poisson_given_that_there_was_one_and_it_was_lost(mean, theta, a, b):
    counts = np.arange(1, 1500)
    hidden = expect(lambda g: shown(g) * lost(g, a, b), theta, mean)
    if hidden < 1e-3:
        return
    of_count = expect(lambda g: lost(g, a, b) * np.sum(stats.poisson.pmf(counts, g) * np.log1p(counts)), theta, mean)
    ours = curve_of(a, b, theta).hidden_log1p(torch.tensor([[mean]])).item()
    assert ours == pytest.approx(of_count / hidden, rel=0.03)
    assert ours >= np.log(2) - 1e-3  # a count that was there is at least 1


def test_one_column_of_the_table_a_gene_is_bilinear_interpolation_also_beyond_the_table():
    """Against scipy's interpolation, and both ways of a look-up against each other, with their gradients."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(LOG_MEAN), len(LOG_SHAPE), generator=generator, requires_grad=True)
    log_mean = (torch.randn(40, 7, generator=generator) * 8).requires_grad_()
    log_shape = torch.tensor([-9.0, -2.9, 0.0, 0.31, 5.0, 11.9, 30.0], requires_grad=True)
    by_gene = look_up(values, log_mean, log_shape)
    of_each = look_up(values, log_mean, log_shape.expand_as(log_mean))
    torch.testing.assert_close(by_gene, of_each)
    oracle = RegularGridInterpolator((LOG_MEAN.numpy(), LOG_SHAPE.numpy()), values.detach().double().numpy())
    inside = [
        x.detach().double().clamp(float(grid[0]), float(grid[-1])).expand_as(log_mean)
        for x, grid in ((log_mean, LOG_MEAN), (log_shape, LOG_SHAPE))
    ]
    np.testing.assert_allclose(by_gene.detach(), oracle(np.stack([x.numpy() for x in inside], -1)), atol=5e-3)
    weight = torch.randn(40, 7, generator=generator)
    gradients = [torch.autograd.grad((x * weight).sum(), [values, log_mean, log_shape]) for x in (by_gene, of_each)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("mean", "count", "theta"), [(2e-3, 1, 50.0), (3.0, 7, 0.4), (2e5, 5000, 0.3), (3e4, 20_000, 2.0)]
)
def test_the_likelihood_of_a_count_is_a_negative_binomials_times_what_is_kept_at_any_size(mean, count, theta):
    arguments = torch.tensor([[float(np.log(mean))]]), torch.tensor([float(np.log(theta))])
    found = log_likelihood(torch.tensor([[float(count)]]), *arguments, torch.tensor([-30.0, 0.0]))  # nothing is lost
    expected = stats.nbinom.logpmf(count, theta, theta / (theta + mean))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=0.05)


def test_without_dropout_no_zero_hides_a_count_and_the_mean_is_the_shrunk_one():
    curve, mu = curve_of(-30.0, 0.0, 2.0), torch.tensor([[0.3, 1.0, 6.0]])
    assert (curve.hidden_probability(mu) < 1e-6).all()
    torch.testing.assert_close(curve.zero_mean(mu), 2 * mu / (2 + mu), rtol=0.01, atol=1e-3)


def test_where_everything_is_lost_a_zero_says_nothing():
    curve, mu = curve_of(30.0, 0.0, 2.0, factor=1.5), torch.tensor([[0.3, 1.0, 6.0]])
    torch.testing.assert_close(curve.zero_mean(mu), 1.5 * mu, rtol=0.01, atol=1e-3)
    zero = (2 / (2 + 1.5 * mu)) ** 2
    torch.testing.assert_close(curve.hidden_probability(mu), 1 - zero, rtol=0.01, atol=1e-3)


def test_likelihood_of_all_counts_sums_to_one():
    coefficients, log_theta = torch.tensor([1.0, -1.2]), torch.tensor([0.5])
    total = 0.0
    for count in range(300):
        x = torch.tensor([[float(count)]])
        total += log_likelihood(x, torch.tensor([[1.5]]), log_theta, coefficients).exp().item()
    assert total == pytest.approx(1.0, abs=0.01)


def simulate(a, b, n_cells=300, n_genes=100, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(1.0, 1.5, n_genes) * rng.lognormal(0, 0.4, (n_cells, 1))
    expression = rng.gamma(4.0, mean / 4.0)
    truth = rng.poisson(expression)
    hidden = (rng.random(mean.shape) < lost(np.maximum(expression, 1e-9), a, b)) & (truth > 0)
    return torch.tensor(mean).float(), torch.tensor(np.where(hidden, 0, truth)).float(), hidden


@pytest.mark.parametrize(("a", "b"), [(2.0, -1.0), (-0.5, 0.4)])
def test_a_fit_finds_the_curve_and_is_calibrated_from_biased_means(a, b):
    mean, x, hidden = simulate(a, b, 500, 200)
    curve = DropoutCurve(x.shape[1])
    fit_dropout_curve(curve, x, mean * 1.2, seed=0)
    assert bool(curve.fitted)
    assert curve.coefficients.tolist() == pytest.approx([a, b], abs=0.15)
    zero = (x == 0).numpy()
    probability = curve.hidden_probability(mean * 1.2).numpy()[zero]
    for low in np.arange(0, 1, 0.2):
        inside = (probability >= low) & (probability < low + 0.2)
        if inside.sum() > 1000:
            assert probability[inside].mean() == pytest.approx(hidden[zero][inside].mean(), abs=0.03)


def test_a_fit_repeats_itself_bit_for_bit():
    mean, x, _ = simulate(2.0, -1.0, 60, 40)
    one, two = DropoutCurve(40), DropoutCurve(40)
    for curve in (one, two):
        fit_dropout_curve(curve, x, mean, seed=3)
    for a, b in zip(one.buffers(), two.buffers(), strict=True):
        assert torch.equal(a, b)


def test_means_that_are_not_finite_are_not_fitted_in_silence():
    mean, x, _ = simulate(2.0, -1.0, 30, 10)
    mean[0, 0] = torch.nan
    with pytest.raises(RuntimeError, match="dropout curve"):
        fit_dropout_curve(DropoutCurve(10), x, mean, seed=0)


def test_a_curve_that_was_not_fitted_says_nothing():
    with pytest.raises(RuntimeError, match="not fitted"):
        DropoutCurve(3).hidden_probability(torch.ones(2, 3))
