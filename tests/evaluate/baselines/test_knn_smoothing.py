import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from scgacl_scvi.evaluate.baselines._knn_smoothing import knn_smoothing


def grouped_counts(n_cells=36, n_genes=20, n_groups=3, seed=0):
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.5, 4, (n_groups, n_genes))
    library = rng.lognormal(0, 0.4, n_cells)
    groups = np.arange(n_cells) % n_groups
    return rng.poisson(profiles[groups] * library[:, None]), groups


def brute_force(counts, n_neighbors, n_pcs):
    """The algorithm as the paper states it, cell by cell; of cells equally near the one with the nearer counts."""
    counts = counts.astype(float)
    n = len(counts)
    first = None
    smoothed = counts.copy()
    for t in range(1, int(np.ceil(np.log2(n_neighbors + 1))) + 1):
        k = min(2**t - 1, n_neighbors)
        total = smoothed.sum(1)
        scaled = np.array(
            [row / s * np.median(total[total > 0]) if s else row for row, s in zip(smoothed, total, strict=True)]
        )
        stabilised = np.sqrt(scaled) + np.sqrt(scaled + 1)
        centred = stabilised - stabilised.mean(0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        points = (u * s)[:, :n_pcs]
        first = points if first is None else first
        smoothed = np.zeros_like(counts)
        for i in range(n):
            distances = [[((p[i] - p[j]) ** 2).sum().round(9) for p in (points, first)] for j in range(n)]
            others = sorted((distances[j], j) for j in range(n) if j != i)
            smoothed[i] = counts[i] + sum(counts[j] for _, j in others[:k])
    return np.array(
        [row / row.sum() * own if own else row * 0 for row, own in zip(smoothed, counts.sum(1), strict=True)]
    )


@pytest.mark.parametrize("n_neighbors", [1, 2, 3, 6, 15])
def test_it_agrees_with_a_loop_over_cells(n_neighbors):
    counts, _ = grouped_counts()
    expected = brute_force(counts, n_neighbors, n_pcs=4)
    for x in (counts, sparse.csr_matrix(counts), sparse.csc_array(counts.astype(np.float32))):
        rates = knn_smoothing(x, n_neighbors=n_neighbors, n_pcs=4)
        assert rates.dtype == np.float32
        np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_it_agrees_with_a_loop_where_the_pca_is_randomised_and_a_cell_is_empty():
    counts, _ = grouped_counts(n_cells=30, n_genes=600)
    counts[4] = 0
    np.testing.assert_allclose(knn_smoothing(counts, n_neighbors=7, n_pcs=2), brute_force(counts, 7, 2), rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(arrays(np.int64, (7, 5), elements=st.integers(0, 6)).filter(lambda x: x.any()), st.integers(1, 6))
def test_every_cell_keeps_its_library_and_every_result_is_finite(counts, n_neighbors):
    rates = knn_smoothing(counts, n_neighbors=n_neighbors, n_pcs=2, seed=0)
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    np.testing.assert_allclose(rates.sum(1), counts.sum(1), rtol=1e-5)
    assert (rates[:, counts.sum(0) == 0] == 0).all()
    assert (rates[counts > 0] > 0).all()  # a cell is always one of those summed


def test_permuting_cells_permutes_the_result():
    counts, _ = grouped_counts(seed=1)
    order = np.random.default_rng(0).permutation(len(counts))
    np.testing.assert_allclose(
        knn_smoothing(counts[order], n_neighbors=6, n_pcs=4), knn_smoothing(counts, n_neighbors=6, n_pcs=4)[order], 1e-5
    )


def test_groups_that_share_no_gene_do_not_mix():
    counts, groups = grouped_counts(n_groups=2)
    counts[groups == 0, :10] = 0
    counts[groups == 1, 10:] = 0
    rates = knn_smoothing(counts, n_neighbors=12, n_pcs=3)
    assert not rates[groups == 0, :10].any()
    assert not rates[groups == 1, 10:].any()


def test_it_comes_nearer_to_the_true_rates_than_the_counts_are():
    rng = np.random.default_rng(0)
    truth = rng.gamma(0.5, 2, (2, 200))[np.arange(100) % 2]
    counts = rng.poisson(truth)
    error = np.square(knn_smoothing(counts) - truth).sum()
    assert error < np.square(counts - truth).sum() / 3


def test_a_seed_repeats_the_result_and_another_need_not():
    noise = np.random.default_rng(0).poisson(1.0, (100, 600))
    first = knn_smoothing(noise, n_pcs=5, seed=0)
    np.testing.assert_array_equal(knn_smoothing(noise, n_pcs=5, seed=0), first)
    assert (knn_smoothing(noise, n_pcs=5, seed=1) != first).any()


def test_the_counts_are_left_as_they_were():
    counts, _ = grouped_counts()
    for x in (counts.astype(np.float32), sparse.csr_matrix(counts, dtype=np.float32)):
        before = x.copy()
        knn_smoothing(x, n_pcs=3)
        assert (x != before).sum() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_neighbors": 0}, "n_neighbors: got 0; pass a whole number from 1 to 35 .*36 cells"),
        ({"n_neighbors": 36}, "n_neighbors: got 36"),
        ({"n_neighbors": 2.5}, "n_neighbors: got 2.5"),
        ({"n_neighbors": True}, "n_neighbors: got True"),
        ({"n_pcs": 21}, r"n_pcs: got 21; pass a whole number from 1 to 20 .*\(36, 20\)"),
        ({"seed": -1}, "seed must be a non-negative integer"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_range(settings, message):
    with pytest.raises(ValueError, match=message):
        knn_smoothing(grouped_counts()[0], **settings)


def test_bad_counts_are_named_with_a_remedy():
    with pytest.raises(ValueError, match="counts: holds negative values; pass counts"):
        knn_smoothing([[-1.0, 2.0], [1.0, 1.0]], n_neighbors=1, n_pcs=1)
    with pytest.raises(ValueError, match="counts: all entries are zero"):
        knn_smoothing(np.zeros((4, 3)), n_neighbors=1, n_pcs=1)
