import numpy as np
import pytest
import scipy.sparse as sp
from scipy import stats

from scgacl_scvi.datasets import simulate_null


@pytest.fixture(scope="module")
def null():
    return simulate_null(6000, 80, seed=0)


def test_counts_and_annotations_are_as_documented(null):
    assert isinstance(null.X, sp.csr_matrix)
    assert null.X.dtype == np.float32
    assert (null.X.data == np.floor(null.X.data)).all()
    assert set(null.obs["cell_type"]) == {"A", "B"}
    assert list(null.var.columns) == ["differential", "fold_change", "gene_mean"]
    change = null.var["fold_change"].to_numpy()
    assert set(change[null.var["differential"]]) == {10.0, 0.1}
    assert set(change[~null.var["differential"]]) == {1.0}
    assert null.var["gene_mean"].between(10**-1.5, 10**1.5).all()
    assert null.uns["simulation"]["seed"] == 0


def test_moments_are_those_of_the_model(null):
    """Means by type, and the variance of a negative binomial whose mean has a log-normal factor."""
    size_mean, size_square = np.exp(0.4**2 / 2), np.exp(2 * 0.4**2)
    change = null.var["fold_change"].to_numpy()
    for name, factor in (("A", change**-0.5), ("B", change**0.5)):
        x = null.X[(null.obs["cell_type"] == name).to_numpy()].toarray().astype(float)
        mean = null.var["gene_mean"].to_numpy() * factor
        expected = mean * size_mean
        variance = expected + mean**2 * (size_square * 1.2 - size_mean**2)
        np.testing.assert_allclose((x.mean(0) - expected) / np.sqrt(variance / len(x)), 0, atol=4.5)
        deep = expected > 1
        np.testing.assert_allclose(x.var(0)[deep] / variance[deep], 1, atol=0.35)
    assert abs((null.obs["cell_type"] == "B").mean() - 0.5) < 0.03
    assert abs(null.var["differential"].mean() - 0.5) < 0.25


@pytest.mark.parametrize("seed", range(5))
def test_both_types_have_the_same_expected_library_so_normalising_moves_no_gene(seed):
    null = simulate_null(10, 300, seed=seed)
    mean, half = null.var["gene_mean"], np.sqrt(null.var["fold_change"])
    assert (mean * half).sum() == pytest.approx((mean / half).sum(), rel=0.01)
    assert 0.2 < (null.var.loc[null.var["differential"], "fold_change"] > 1).mean() < 0.8


def test_genes_are_independent_inside_a_type_but_for_depth(null):
    plain = simulate_null(3000, 30, library_scale=0.0, seed=1)
    x = plain.X[(plain.obs["cell_type"] == "A").to_numpy()].toarray()
    p = stats.spearmanr(x).pvalue[np.triu_indices(30, 1)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_the_seed_decides_and_nothing_else(null):
    np.random.seed(1)
    again = simulate_null(6000, 80, seed=0)
    assert (again.X != null.X).nnz == 0
    assert (simulate_null(50, 20, seed=1).X != simulate_null(50, 20, seed=2).X).nnz > 0


def test_settings_act():
    assert not simulate_null(20, 50, de_prob=0.0, seed=0).var["differential"].any()
    assert simulate_null(20, 50, de_prob=1.0, seed=0).var["differential"].all()
    assert set(simulate_null(20, 50, de_prob=1.0, fold_change=4, seed=0).var["fold_change"]) == {4.0, 0.25}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_cells": 0}, "n_cells must be a whole number of at least 1"),
        ({"de_prob": 1.5}, "de_prob must be a number from 0 to 1"),
        ({"fold_change": 0.5}, "fold_change must be a number from 1"),
        ({"dispersion": 0}, "dispersion must be a number from"),
        ({"library_scale": -1}, "library_scale must be a number from 0"),
        ({"seed": -1}, "seed must be a non-negative integer"),
    ],
)
def test_an_argument_out_of_range_is_named_with_a_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_null(**arguments)
