import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats
from sklearn.metrics import mean_squared_error

from scgacl_scvi.datasets import thin
from scgacl_scvi.evaluate import (
    _matrix,
    cp10k_mse,
    lognorm,
    molecular_cv,
    poisson_gain,
    poisson_loss,
    poisson_loss_as_coded,
)
from scgacl_scvi.evaluate.baselines import PeerUnavailable, gene_mean


def two_types(seed=0, n=120, g=40):
    """True rates of two types, and UMI counts drawn from them."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(1.0, 1.5, (2, g))
    rates = profile[np.arange(n) % 2] * rng.lognormal(0, 0.3, (n, 1))
    return rates, rng.poisson(rates)


def test_the_loss_is_the_formula():
    q, t = np.array([[0.5, 2.0, 0.0]]), np.array([[1, 3, 2]])
    expected = (0.5 - np.log(0.5 + 1e-6) + 2 - 3 * np.log(2 + 1e-6) + 0 - 2 * np.log(1e-6)) / 3
    assert poisson_loss(q, t) == pytest.approx(expected)


def test_the_gain_is_the_difference_in_poisson_log_likelihood():
    rates, counts = two_types()
    baseline = gene_mean(counts).astype(float)
    expected = stats.poisson.logpmf(counts, rates).sum() - stats.poisson.logpmf(counts, baseline).sum()
    assert poisson_gain(rates, counts, baseline) == pytest.approx(expected / counts.sum(), rel=1e-3)


def test_the_loss_as_coded_is_the_formula_with_both_swapped():
    q, t = np.array([[0.5, 2.0, 0.0]]), np.array([[1, 0, 2]])
    by_hand = (1 - 0.5 * np.log(1 + 1e-6) + 0 - 2.0 * np.log(1e-6) + 2 - 0.0) / 3
    assert poisson_loss_as_coded(q, t) == pytest.approx(by_hand)
    assert poisson_loss_as_coded(2 * q, t, depth_ratio=0.5) == pytest.approx(by_hand)
    assert poisson_loss_as_coded(q, t) == pytest.approx(poisson_loss(t, q))  # q need not be whole


def test_as_coded_the_raw_counts_are_as_good_as_the_truth_and_zeros_are_nearly_perfect():
    rates, _ = two_types(n=3000)
    rates = np.minimum(rates, 1.0)  # zeros and ones nearly all, as held-out molecules are
    counts = np.random.default_rng(1).poisson(rates)
    table = molecular_cv(counts, {"truth": lambda x: 0.9 * rates}).set_index("method")
    honest = ["truth", "no denoising", "gene mean"]
    assert table.loc["all zeros", "score_as_coded"] > 0.9 > 0.1 > table.loc[honest, "score_as_coded"].max()
    assert abs(table.loc["truth", "score_as_coded"]) < 0.05
    assert table["score"].idxmin() == "all zeros"
    assert table.loc[honest, "score"].idxmax() == "truth"


rate_matrices = arrays(np.float64, (4, 3), elements=st.floats(0, 1e4))


@settings(max_examples=60, deadline=None)
@given(rate_matrices, arrays(np.int64, (4, 3), elements=st.integers(0, 50)), st.floats(0.01, 10))
def test_the_baseline_gains_nothing_over_itself(rates, test, depth_ratio):
    test[0, 0] += 1
    assert poisson_gain(rates, test, rates.copy(), depth_ratio=depth_ratio) == 0


@settings(max_examples=30, deadline=None)
@given(rate_matrices, rate_matrices, arrays(np.int64, (4, 3), elements=st.integers(1, 50)), st.permutations(range(4)))
def test_the_order_of_the_cells_does_not_matter(rates, baseline, test, order):
    gain = poisson_gain(rates, test, baseline)
    assert poisson_gain(rates[order], test[order], baseline[order]) == pytest.approx(gain, abs=1e-6)
    assert cp10k_mse(rates[order], test[order]) == pytest.approx(cp10k_mse(rates, test), abs=1e-9)


def test_no_rates_do_better_than_the_true_ones():
    rates, counts = two_types(n=2000)
    assert poisson_gain(rates, counts, rates * 1.1) > 0
    assert poisson_gain(rates, counts, rates * 0.9) > 0
    assert poisson_gain(rates, counts, rates + 0.05) > 0


def test_rates_too_small_to_divide_by_do_no_harm():
    tiny = np.full((2, 2), 5e-324)
    assert cp10k_mse(tiny, np.ones((2, 2))) == 0
    np.testing.assert_array_equal(lognorm([[5e-324, 0.0], [3.0, 4.0], [3.0, 4.0]])[0], np.log1p([7.0, 0.0]))


def test_the_depth_ratio_scales_the_rates():
    rates, counts = two_types()
    assert poisson_loss(rates, counts, depth_ratio=0.25) == pytest.approx(poisson_loss(rates / 4, counts))


def test_the_mse_is_that_of_open_problems():
    rates, counts = two_types()
    rates[3] = 0  # a cell without a prediction stays at zero
    a, b = ((m / np.maximum(m.sum(1, keepdims=True), 1e-300)) * 1e4 for m in (rates, counts))
    assert cp10k_mse(rates, counts) == pytest.approx(mean_squared_error(np.log1p(a), np.log1p(b)))


def test_containers_and_blocks_do_not_matter(monkeypatch):
    rates, counts = two_types()
    loss, mse = poisson_loss(rates, counts), cp10k_mse(rates, counts)
    monkeypatch.setattr(_matrix, "BLOCK_ENTRIES", 7 * 40)
    assert poisson_loss(sparse.csc_matrix(rates), sparse.csr_array(counts)) == pytest.approx(loss)
    assert cp10k_mse(sparse.csc_matrix(rates), sparse.csr_array(counts)) == pytest.approx(mse)


def oracle(counts, rates_of, seed=0):
    """Molecular cross-validation of one method, written straight from the definition."""
    train, test = thin(counts, 0.9, seed)
    kept = train.sum(0) > 0
    train, test = train[:, kept].astype(float), test[:, kept].astype(float)

    def loss(rates):
        q = rates * test.sum() / train.sum()
        return np.mean(q - test * np.log(q + 1e-6))

    mean = train.sum(1, keepdims=True) * train.sum(0) / train.sum()
    value = loss(rates_of(train))
    return value, (loss(mean) - value) * test.size / test.sum()


def test_molecular_cv_agrees_with_its_definition():
    _, counts = two_types()
    counts[:, 5] = 0
    table = molecular_cv(counts, {"half way": lambda x: 0.5 * x + 0.5 * gene_mean(x)}, seed=0).set_index("method")
    expected = oracle(counts, lambda x: 0.5 * x + 0.5 * x.sum(1, keepdims=True) * x.sum(0) / x.sum())
    assert tuple(table.loc["half way", ["loss", "gain_nats"]]) == pytest.approx(expected, rel=1e-5)
    assert table.attrs["n_genes"] == 39


def test_controls_are_always_there():
    _, counts = two_types()
    table = molecular_cv(sparse.csr_matrix(counts), {}, seed=4).set_index("method")
    assert list(table.index) == ["no denoising", "gene mean", "all zeros", "held-out counts (a leak)"]
    assert table.loc["gene mean", "gain_nats"] == 0
    assert table.loc["no denoising", "mse_gain"] == 0
    assert table.loc["no denoising", "gain_nats"] < 0
    _, test = thin(counts, 0.9, seed=4)
    assert table.loc["all zeros", "loss"] == pytest.approx(-test.mean() * np.log(1e-6), rel=1e-5)
    assert table.loc["all zeros", "loss_as_coded"] == pytest.approx(test.mean())
    scores = ["score", "score_as_coded", "mse_gain"]
    np.testing.assert_allclose(table.loc["no denoising", scores].astype(float), 0)
    np.testing.assert_allclose(table.loc["held-out counts (a leak)", scores].astype(float), 1)


def test_the_true_rates_win():
    rates, counts = two_types(n=600)
    methods = {"truth": lambda x: rates * 0.9, "wrong type": lambda x: np.roll(rates, 1, axis=0) * 0.9}
    gain = molecular_cv(counts, methods).set_index("method")["gain_nats"].drop("held-out counts (a leak)")
    assert gain.idxmax() == "truth"
    assert gain["truth"] > 0.05
    assert gain["wrong type"] < 0


def test_all_methods_see_the_same_split_even_if_one_writes_into_it():
    _, counts = two_types()
    seen = []

    def vandal(x):
        seen.append(x.copy())
        x[:] = 0
        return x

    def witness(x):
        seen.append(x.copy())
        return x

    table = molecular_cv(counts, {"vandal": vandal, "witness": witness}).set_index("method")
    np.testing.assert_array_equal(*seen)
    assert table.loc["witness", "loss"] == table.loc["no denoising", "loss"]


def test_dense_and_sparse_counts_score_alike():
    _, counts = two_types()
    a, b = (molecular_cv(x, {}, seed=2) for x in (counts, sparse.csr_matrix(counts)))
    figures = ["loss", "gain_nats", "score", "loss_as_coded", "score_as_coded", "mse", "mse_gain", "leak_z"]
    np.testing.assert_allclose(a[figures], b[figures], atol=1e-12)


def test_a_method_that_is_not_there_gets_a_row_with_the_reason():
    def absent(x):
        raise PeerUnavailable("absent: no interpreter is named")

    table = molecular_cv(two_types()[1], {"absent": absent, "copy": lambda x: x}).set_index("method")
    figures = table.drop(columns=["note", "leaks"])
    assert figures.loc["absent"].isna().all()
    assert figures.drop("absent").notna().all(axis=None)
    assert table.loc["absent", "note"] == "absent: no interpreter is named"
    assert not table.loc["absent", "leaks"]
    assert set(table["note"].drop("absent")) == {""}


def test_what_a_method_took_is_told():
    def slow(x):
        ballast = np.ones(6_000_000)
        time.sleep(0.1)
        return x + 0 * ballast[0]

    row = molecular_cv(two_types()[1], {"slow": slow}).set_index("method").loc["slow"]
    assert 0.1 < row["seconds"] < 10
    assert 0 < row["cpu_seconds"] < row["seconds"] + 1
    assert 40 < row["peak_mb"] < 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": [[0.5, 1.0]]}, "counts must be non-negative integers"),
        ({"fraction": 1.0}, "fraction: got 1.0; pass a share between 0 and 1"),
        ({"methods": {"gene mean": lambda x: x}}, "methods: .*'gene mean'.* choose other names"),
        ({"methods": {"ours": lambda x: x[:, :1]}}, "methods: 'ours' returned .*rates: shape"),
        ({"methods": {"ours": lambda x: x * np.nan}}, "methods: 'ours' returned .*rates: holds NaN"),
        ({"methods": {"ours": lambda x: -x}}, "methods: 'ours' returned .*rates: holds negative"),
    ],
)
def test_bad_input_to_molecular_cv_is_named_with_a_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        molecular_cv(**({"counts": two_types()[1], "methods": {}} | arguments))


def test_bad_input_to_the_losses_is_named_with_a_remedy():
    ones = np.ones((2, 2))
    with pytest.raises(ValueError, match="test: holds no molecule; hold out"):
        poisson_gain(ones, 0 * ones, ones)
    with pytest.raises(ValueError, match="baseline_rates: shape"):
        poisson_gain(ones, ones, np.ones((3, 2)))
    with pytest.raises(ValueError, match="depth_ratio: got 0; pass"):
        poisson_loss(ones, ones, depth_ratio=0)
