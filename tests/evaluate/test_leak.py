import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from scgacl_scvi.datasets import thin
from scgacl_scvi.evaluate import _matrix, leak_z, molecular_cv
from scgacl_scvi.evaluate._leak import LIMIT
from scgacl_scvi.evaluate.baselines import all_zeros, gene_mean


def split(seed, n=100, g=60, depth=1.0):
    """True rates of three types, and training and held-out molecules drawn from them, over-dispersed among cells."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.5, 2.0 * depth, (3, g))[np.arange(n) % 3] * rng.gamma(5, 0.2, (n, g))
    return rates, *thin(rng.poisson(rates), 0.9, seed)


def test_the_score_is_the_formula_on_a_case_by_hand():
    # Both sum to 4, so q = rates. (t - q)^2 - t: 0, 1 - 0, 1 - 2, 0 - 2 with t = 0, 0, 2, 2 and q = 0, 1, 1, 2.
    # Sum -2; squares 0 + 1 + 1 + 4 = 6, below 2 * sum of q^2 = 12.
    assert leak_z([[0, 1], [1, 2]], [[0, 0], [2, 2]]) == pytest.approx(-2 / np.sqrt(12))


def test_the_score_is_the_product_of_the_residuals_of_random_halves_on_average():
    rates, _, test = split(0, n=20, g=10)
    q = rates * test.sum() / rates.sum()
    rng = np.random.default_rng(0)
    halves = rng.binomial(test, 0.5, (4000, *test.shape))
    products = ((halves - q / 2) * (test - halves - q / 2)).sum((1, 2))
    assert 4 * products.mean() == pytest.approx(((test - q) ** 2 - test).sum(), abs=5 * 4 * products.std() / 4000**0.5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.1, 1.0, 10.0]))
def test_no_honest_method_is_called_a_leak_and_a_leak_always_is(seed, depth):
    rates, train, test = split(seed, n=300, depth=depth)
    seen = {"truth": rates, "no denoising": train, "gene mean": gene_mean(train), "all zeros": all_zeros(train)}
    assert {name: leak_z(q, test) for name, q in seen.items() if leak_z(q, test) < LIMIT} == {}
    assert leak_z(test, test) < LIMIT


@pytest.mark.parametrize("seed", range(20))
def test_a_tenth_of_the_held_out_counts_is_noticed(seed):
    rng = np.random.default_rng(seed)
    rates = np.outer(rng.gamma(5, 0.2, 300), rng.gamma(1.0, 2.0, 100))
    train, test = thin(rng.poisson(rates), 0.9, seed)
    mean = gene_mean(train)
    assert leak_z(mean, test) > LIMIT
    assert leak_z(0.9 * mean + 0.1 * test * train.sum() / test.sum(), test) < LIMIT


def test_true_rates_score_like_a_standard_normal():
    scores = [leak_z(rates, test) for rates, _, test in (split(seed) for seed in range(200))]
    assert abs(np.mean(scores)) < 4 / np.sqrt(200)
    assert 0.7 < np.std(scores) < 1.2


def test_depth_containers_and_blocks_do_not_matter(monkeypatch):
    rates, _, test = split(1)
    expected = leak_z(rates, test)
    assert leak_z(rates * 7, test) == pytest.approx(expected)
    monkeypatch.setattr(_matrix, "BLOCK_ENTRIES", 7 * 60)
    assert leak_z(sparse.csc_matrix(rates), sparse.csr_array(test)) == pytest.approx(expected)


def test_nothing_predicted_and_nothing_held_out_score_zero():
    assert leak_z([[0.0, 0.0]], [[1, 0]]) == 0
    assert leak_z([[1.0, 2.0]], [[0, 0]]) == 0


def test_the_table_catches_a_method_that_returns_the_held_out_counts():
    rates, train, test = split(0)
    counts = train + test
    kept = train.sum(0) > 0
    methods = {
        "cheat": lambda x: test[:, kept] + 0.0,  # not even at the right depth
        "partly": lambda x: 0.9 * gene_mean(x) + 0.1 * test[:, kept] * train.sum() / test.sum(),
        "honest": lambda x: 0.9 * rates[:, kept],
    }
    table = molecular_cv(counts, methods, seed=0).set_index("method")
    assert list(table.index[table["leaks"]]) == ["cheat", "held-out counts (a leak)"]
