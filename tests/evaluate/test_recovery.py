import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats
from scipy.spatial.distance import cosine

from scgacl_scvi.evaluate import Recovery, _matrix, lognorm, recovery
from scgacl_scvi.evaluate.baselines import gene_mean

TRUTH = np.array([[1, 3, 0], [2, 2, 4]])  # libraries 4 and 8, median 6
OBSERVED = np.array([[1, 0, 0], [2, 2, 0]])


def simulated(seed=0, n=60, g=40):
    rng = np.random.default_rng(seed)
    truth = rng.poisson(rng.gamma(2.0, 1.5, g) * rng.lognormal(0, 0.4, (n, 1)))
    observed = truth * (rng.random(truth.shape) < 0.6)
    imputed = np.where(observed > 0, lognorm(observed), rng.normal(1.0, 0.3, truth.shape))
    return imputed, truth, observed


def by_hand(imputed, truth, observed):
    """Same measures in plain numpy and SciPy, with loops."""
    library = truth.sum(1, keepdims=True)
    v = np.log(1 + truth / library * np.median(library))
    d = (observed == 0) & (truth > 0)
    return Recovery(
        pearson_dropouts=stats.pearsonr(imputed[d], v[d]).statistic,
        rmse_dropouts=np.sqrt(np.mean((imputed[d] - v[d]) ** 2)),
        cosine_dropouts=1 - cosine(imputed[d], v[d]),
        pearson_all=stats.pearsonr(imputed.ravel(), v.ravel()).statistic,
        rmse_all=np.sqrt(np.mean((imputed - v) ** 2)),
        median_pearson_cells=np.median([stats.pearsonr(a, b).statistic for a, b in zip(imputed, v, strict=True)]),
        median_pearson_genes=np.median([stats.pearsonr(a, b).statistic for a, b in zip(imputed.T, v.T, strict=True)]),
        n_dropouts=d.sum(),
    )


def assert_same(a, b, **tolerance):
    np.testing.assert_allclose(dataclasses.astuple(a), dataclasses.astuple(b), **tolerance)


def test_a_case_worked_by_hand():
    # lognorm truth: [log 2.5, log 5.5, 0], [log 2.5, log 2.5, log 4]; dropouts are the 5.5 and the 4.
    imputed = np.array([[np.log(2.5), 1.0, 0.0], [np.log(2.5), np.log(2.5), 2.0]])
    result = recovery(imputed, TRUTH, OBSERVED)
    e1, e2 = 1 - np.log(5.5), 2 - np.log(4)
    assert result.n_dropouts == 2
    assert result.pearson_dropouts == pytest.approx(-1)
    assert result.rmse_dropouts == pytest.approx(np.sqrt((e1**2 + e2**2) / 2))
    assert result.rmse_all == pytest.approx(np.sqrt((e1**2 + e2**2) / 6))
    dot, lengths = np.log(5.5) + 2 * np.log(4), np.sqrt(5) * np.hypot(np.log(5.5), np.log(4))
    assert result.cosine_dropouts == pytest.approx(dot / lengths)
    # Gene 1 is constant in the truth and left out; genes 2 and 3 have their two cells in the right order.
    assert result.median_pearson_genes == pytest.approx(1)


def test_it_agrees_with_scipy():
    assert_same(recovery(*simulated()), by_hand(*simulated()), rtol=1e-6)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array, pd.DataFrame])
def test_containers_do_not_matter(container):
    imputed, truth, observed = simulated()
    assert_same(
        recovery(container(imputed), container(truth), container(observed)),
        recovery(imputed, truth, observed),
        rtol=1e-9,
    )


def test_the_size_of_the_blocks_does_not_matter(monkeypatch):
    whole = recovery(*simulated())
    monkeypatch.setattr(_matrix, "BLOCK_ENTRIES", 3 * 40)
    assert_same(recovery(*simulated()), whole, rtol=1e-9)


def test_counts_are_scaled_to_their_own_median_library():
    _, truth, observed = simulated()
    imputed = truth * np.linspace(0.5, 7, len(truth))[:, None]  # depth must not matter
    result = recovery(imputed, truth, observed, imputed_scale="counts")
    assert result == recovery(lognorm(imputed), truth, observed)
    assert result.median_pearson_cells > 0.95


count_matrices = arrays(np.int64, st.tuples(st.integers(2, 7), st.integers(2, 6)), elements=st.integers(0, 300))


@settings(max_examples=60, deadline=None)
@given(count_matrices, st.integers(0, 100))
def test_the_truth_recovers_itself_perfectly(truth, seed):
    assume(truth.any())
    observed = truth * (np.random.default_rng(seed).random(truth.shape) < 0.5)
    result = recovery(lognorm(truth.astype(float)), truth, observed)
    assert result.rmse_all == pytest.approx(0, abs=1e-9)
    if np.ptp(lognorm(truth.astype(float))) > 1e-3:
        assert result.pearson_all == pytest.approx(1)
    for value in (result.median_pearson_cells, result.median_pearson_genes):
        assert np.isnan(value) or value == pytest.approx(1)
    if result.n_dropouts:
        assert result.cosine_dropouts == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_cells_and_genes_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    matrices = simulated(seed, n=12, g=9)
    cells, genes = rng.permutation(12), rng.permutation(9)
    assert_same(recovery(*(m[np.ix_(cells, genes)] for m in matrices)), recovery(*matrices), rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predicting_the_gene_mean_scores_zero_per_gene(dtype):
    _, truth, observed = simulated()
    rates = gene_mean(observed).astype(dtype)
    result = recovery(rates, truth, observed, imputed_scale="counts")
    assert result.median_pearson_genes == 0
    assert result.median_pearson_cells > 0.3


def test_leaving_zeros_scores_zero_on_dropouts():
    _, truth, observed = simulated()
    result = recovery(lognorm(observed), truth, observed)
    assert result.pearson_dropouts == result.cosine_dropouts == 0


def test_without_dropouts_only_their_scores_are_nan():
    imputed, truth, _ = simulated()
    result = recovery(imputed, truth, truth)
    assert result.n_dropouts == 0
    assert np.isnan([result.pearson_dropouts, result.rmse_dropouts, result.cosine_dropouts]).all()
    assert np.isfinite([result.pearson_all, result.rmse_all, result.median_pearson_genes]).all()


def test_a_list_of_results_makes_a_table():
    table = pd.DataFrame([recovery(*simulated(s)) for s in (0, 1)], index=["a", "b"])
    assert table.shape == (2, 8)


def test_sparse_input_is_never_made_dense_as_a_whole(monkeypatch):
    monkeypatch.setattr(_matrix, "BLOCK_ENTRIES", 2**15)
    truth = sparse.random(8000, 500, density=0.02, format="csr", rng=np.random.default_rng(0))
    truth.data = np.ceil(truth.data * 20)
    imputed = lognorm(truth)
    tracemalloc.start()
    recovery(imputed, truth, truth)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8000 * 500 * 8 / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imputed": np.ones((2, 2))}, "imputed: shape .* differs from that of truth"),
        ({"observed": np.ones((3, 3))}, "observed: shape"),
        ({"imputed": np.full((2, 3), np.nan)}, "imputed: holds NaN"),
        ({"truth": -TRUTH}, "truth: holds negative values; pass counts"),
        ({"imputed_scale": "log"}, "imputed_scale: got 'log'; use"),
        ({"imputed": -np.ones((2, 3)), "imputed_scale": "counts"}, "imputed: holds negative"),
    ],
)
def test_bad_input_is_named_with_a_remedy(change, message):
    arguments = {"imputed": np.ones((2, 3)), "truth": TRUTH, "observed": OBSERVED} | change
    with pytest.raises(ValueError, match=message):
        recovery(**arguments)
