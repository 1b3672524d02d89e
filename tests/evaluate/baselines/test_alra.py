import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from scgacl_scvi.evaluate.baselines import _alra
from scgacl_scvi.evaluate.baselines._alra import alra


def grouped_counts(n_cells=120, n_genes=110, n_groups=4, seed=0):
    """Counts of groups with genes of their own, and which entries are truly zero."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(2.0, 1.0, (n_groups, n_genes))
    profiles *= rng.random((n_groups, n_genes)) < 0.5
    profiles[:, profiles.sum(0) == 0] = 1.0
    rates = profiles[np.arange(n_cells) % n_groups] * rng.lognormal(0, 0.3, (n_cells, 1))
    return rng.poisson(rates), rates == 0


def log1p_cp10k(counts):
    return np.array([np.log1p(row / row.sum() * 1e4) for row in counts.astype(float)])


def brute_force(counts, rank=None):
    """The steps of the paper with an exact decomposition, gene by gene; also the rank. Empty cells and genes aside."""
    cells, genes = counts.any(1), counts.any(0)
    if not (cells.all() and genes.all()):
        rates = np.zeros(counts.shape)
        rates[np.ix_(cells, genes)], rank = brute_force(counts[np.ix_(cells, genes)], rank)
        return rates, rank
    observed = log1p_cp10k(counts)
    u, s, vt = np.linalg.svd(observed, full_matrices=False)
    if rank is None:
        values = s[:100]
        spacing = [values[i] - values[i + 1] for i in range(len(values) - 1)]  # spacing[i] lies below value i + 1
        noise = np.array([spacing[i] for i in range(len(spacing)) if i + 1 >= 80])
        rank = max(i + 1 for i in range(len(spacing)) if spacing[i] > noise.mean() + 6 * np.std(noise, ddof=1))
    low = (u[:, :rank] * s[:rank]) @ vt[:rank]
    out = np.zeros_like(observed)
    for j in range(counts.shape[1]):
        gene, seen = low[:, j], observed[:, j]
        kept = gene > abs(min(gene.min(), 0))
        left, reference = gene[kept], seen[seen > 0]
        if len(left) > 1 and len(reference) > 1 and np.std(left) > 0 and np.std(reference) > 0:
            left = (left - left.mean()) / np.std(left, ddof=1) * np.std(reference, ddof=1) + reference.mean()
        out[kept, j] = np.where(left < 0, 0, left)
        for i in range(len(counts)):
            if out[i, j] == 0:
                out[i, j] = seen[i]
    return np.expm1(out) / 1e4 * counts.sum(1, keepdims=True), rank


@pytest.mark.parametrize("rank", [1, 3, 4, 9, None])
def test_it_agrees_with_a_loop_over_genes_and_an_exact_decomposition(rank):
    counts, _ = grouped_counts()
    counts[5] = 0
    counts[:, 7] = 0
    counts[:, 8] = np.arange(120) == 3  # one observed value: no spread to scale to
    expected, _ = brute_force(counts, rank)
    for x in (counts, sparse.csr_matrix(counts), sparse.csc_array(counts.astype(np.float32))):
        rates = alra(x, rank=rank)
        assert rates.dtype == np.float32
        np.testing.assert_allclose(rates, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(120, 110), (90, 300), (300, 90), (400, 350)])
def test_the_rank_is_that_of_an_exact_decomposition(shape, monkeypatch):
    ranks = []
    choose = _alra._choose_rank
    monkeypatch.setattr(_alra, "_choose_rank", lambda singular: ranks.append(choose(singular)) or ranks[-1])
    counts, _ = grouped_counts(*shape)
    alra(counts)
    assert ranks == [brute_force(counts)[1]]


def test_the_blocks_of_genes_do_not_show(monkeypatch):
    counts, _ = grouped_counts()
    whole = alra(counts, rank=4)
    monkeypatch.setattr("scgacl_scvi.evaluate._matrix.BLOCK_ENTRIES", 1000)
    np.testing.assert_allclose(alra(counts, rank=4), whole, rtol=1e-6)


def test_it_leaves_true_zeros_and_completes_the_others():
    counts, never = grouped_counts(400, 150)
    filled = alra(counts, rank=4)[counts == 0] > 0
    assert filled[never[counts == 0]].mean() < 0.01
    assert filled[~never[counts == 0]].mean() > 0.8


@settings(max_examples=30, deadline=None)
@given(arrays(np.int64, (7, 5), elements=st.integers(0, 6)).filter(lambda x: x.any()), st.integers(1, 5))
def test_observed_entries_stay_above_zero_and_empty_cells_and_genes_at_zero(counts, rank):
    rates = alra(counts, rank=rank, seed=0)
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()
    assert (rates[counts > 0] > 0).all()
    assert not rates[counts.sum(1) == 0].any()
    assert not rates[:, counts.sum(0) == 0].any()


def test_permuting_cells_permutes_the_result():
    counts, _ = grouped_counts(seed=1)
    order = np.random.default_rng(0).permutation(len(counts))
    np.testing.assert_allclose(alra(counts[order]), alra(counts)[order], rtol=1e-4, atol=1e-6)


def test_a_seed_repeats_the_result_and_another_need_not():
    noise = np.random.default_rng(0).poisson(1.0, (150, 200))
    first = alra(noise, rank=5, seed=0)
    np.testing.assert_array_equal(alra(noise, rank=5, seed=0), first)
    assert (alra(noise, rank=5, seed=1) != first).any()


def test_the_counts_are_left_as_they_were():
    counts, _ = grouped_counts()
    for x in (counts.astype(float), sparse.csr_matrix(counts, dtype=np.float64)):
        before = x.copy()
        alra(x)
        assert (x != before).sum() == 0


@pytest.mark.parametrize(
    ("rank", "message"),
    [
        (0, r"rank: got 0; pass a whole number from 1 to 84 .*\(84, 200\)"),
        (85, "rank: got 85"),
        (2.0, "rank: got 2.0"),
        (True, "rank: got True"),
        (None, r"rank: cannot be chosen .* \(84, 200\), which has 84 singular values, fewer than 85; pass rank"),
    ],
)
def test_a_rank_out_of_range_or_out_of_reach_is_named_with_a_remedy(rank, message):
    with pytest.raises(ValueError, match=message):
        alra(np.ones((84, 200)), rank=rank)


def test_the_noise_begins_with_the_spacing_below_the_80th_singular_value():
    spacings = np.ones(99)
    spacings[78], spacings[79] = 12, 5  # below the 79th and the 80th: only the latter is noise, and widens its spread
    assert _alra._choose_rank(np.append(np.cumsum(spacings[::-1])[::-1], 0) + 1) == 79


def test_a_spectrum_without_a_step_asks_for_the_rank():
    with pytest.raises(ValueError, match="rank: no singular value of counts stands out.*pass rank"):
        _alra._choose_rank(np.arange(100, 0, -1.0))


def test_bad_counts_are_named_with_a_remedy():
    with pytest.raises(ValueError, match="counts: holds negative values; pass counts"):
        alra([[-1.0, 2.0]], rank=1)
    with pytest.raises(ValueError, match="counts: all entries are zero"):
        alra(np.zeros((4, 3)), rank=1)
