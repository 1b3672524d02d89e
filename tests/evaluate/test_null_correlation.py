import math

import numpy as np
import pytest
from scipy import sparse, stats

from scgacl_scvi.datasets import simulate_null
from scgacl_scvi.evaluate import _null_correlation, lognorm, null_correlation


def by_scipy(x, differential):
    """Shares of significant pairs, one SciPy correlation at a time."""
    n, g = x.shape
    pairs = [(i, j) for i in range(g) for j in range(i)]
    found = {True: [], False: []}
    for i, j in pairs:
        constant = np.ptp(x[:, i]) == 0 or np.ptp(x[:, j]) == 0
        rho = 0.0 if constant else stats.spearmanr(x[:, i], x[:, j]).statistic
        z = math.atanh(min(max(rho, -1 + 1e-12), 1 - 1e-12)) / math.sqrt(1.06 / (n - 3))
        found[bool(differential[i] and differential[j])].append(2 * stats.norm.sf(abs(z)) < 0.05 / len(pairs))
    return np.mean(found[False]), np.mean(found[True])


@pytest.mark.parametrize("block", [1024, 5])
def test_the_shares_are_those_of_scipy_pair_by_pair(monkeypatch, block):
    monkeypatch.setattr(_null_correlation, "_BLOCK_GENES", block)
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(80, 3))
    x = np.round(signal @ rng.normal(size=(3, 18)) + 1.5 * rng.normal(size=(80, 18)), 1)  # rounded: ties
    x[:, 4] = 2.0
    x[:, 5] = -x[:, 6]
    differential = rng.random(18) < 0.5
    false, true = by_scipy(x, differential)
    assert 0.05 < false < 0.95  # a comparison of 0 with 0 would say nothing
    found = null_correlation(x, differential)
    assert (found.false_share, found.true_share) == pytest.approx((false, true))
    assert found.n_null_pairs + found.n_true_pairs == 18 * 17 // 2
    assert null_correlation(sparse.csr_matrix(x), differential) == found


def test_a_case_by_hand():
    # Genes a, b rise together over 12 cells (rho 1: significant), c is constant. Pairs: a-b true; a-c, b-c null.
    rise = np.arange(12.0)
    x = np.stack([rise, rise**3, np.ones(12)], axis=1)
    found = null_correlation(x, [True, True, False])
    assert (found.false_share, found.true_share, found.n_null_pairs, found.n_true_pairs) == (0.0, 1.0, 2, 1)
    found = null_correlation(x, [True, False, False])
    assert found.false_share == pytest.approx(1 / 3)
    assert math.isnan(found.true_share)
    assert math.isnan(null_correlation(x, [1, 1, 1]).false_share)


def test_differences_below_nine_decimals_are_ties():
    rng = np.random.default_rng(0)
    base = np.repeat([0.0, 1.0], 30)[:, None]
    noise = np.sort(rng.random((60, 1)), axis=0) * 1e-12  # rises over all cells in both genes
    exact = null_correlation(np.hstack([base, base[::-1] * 0 + 1.0]), [True, True])
    assert null_correlation(np.hstack([base + noise, np.ones((60, 1)) + noise]), [True, True]) == exact


@pytest.mark.parametrize("seed", range(3))
def test_independent_genes_give_no_pairs_and_smoothing_invents_them(seed):
    null = simulate_null(400, 100, seed=seed)
    differential = null.var["differential"]
    raw = null_correlation(lognorm(null.X), differential)
    assert raw.false_share < 0.002
    assert raw.true_share > 0.4
    smooth = np.stack([np.convolve(column, np.ones(40), "same") for column in null.X.toarray().T], axis=1)
    assert null_correlation(lognorm(smooth), differential).false_share > 0.1


@pytest.mark.parametrize(
    ("values", "differential", "message"),
    [
        (np.ones((3, 2)), [True, False], "values: got 3 cells x 2 genes; .* at least 4 cells"),
        (np.ones((9, 1)), [True], "values: got 9 cells x 1 genes"),
        (np.full((9, 2), np.nan), [True, False], "values: holds NaN"),
        (np.ones((9, 2)), [True], "differential: expected one value for each of 2 genes"),
        (np.ones((9, 2)), [0.5, 1.0], "differential: expected True or False"),
    ],
)
def test_bad_input_is_named_with_a_remedy(values, differential, message):
    with pytest.raises(ValueError, match=message):
        null_correlation(values, differential)
