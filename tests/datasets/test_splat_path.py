"""Paths lead from a shared start to each group."""

import numpy as np
import pytest

from scgacl_scvi.datasets import simulate_splat
from scgacl_scvi.datasets._genes import draw_genes, path_factor
from scgacl_scvi.datasets._parameters import SplatParameters


def genes_of(adata):
    stored = dict(adata.uns["simulation"])
    seed = stored.pop("seed")
    assert stored.pop("model") == "splat"
    return draw_genes(SplatParameters(**stored), seed)


def test_positions_are_uniform_and_groups_are_branches():
    adata = simulate_splat(5000, 2, path=True, seed=0)
    position = adata.obs["path_position"]
    assert np.sort(position) == pytest.approx(np.linspace(0, 1, 5000), abs=0.03)
    assert list(adata.obs["group"].cat.categories) == ["Group1", "Group2", "Group3", "Group4"]


def test_factors_go_straight_and_monotone_from_one_to_the_group():
    adata = simulate_splat(2, 400, path=True, de_prob=0.5, seed=0)
    genes = genes_of(adata)
    for group in range(4):
        end = adata.var[f"de_factor_Group{group + 1}"]
        factors = np.array([path_factor(genes, group, position) for position in np.linspace(0, 1, 21)])
        np.testing.assert_array_equal(factors[0], 1)
        np.testing.assert_allclose(factors[-1], end)
        np.testing.assert_allclose(factors[10], (1 + end) / 2)
        steps = np.diff(factors, axis=0)
        assert ((steps >= 0) == (end >= 1).to_numpy()).all()


def test_counts_follow_the_path():
    adata = simulate_splat(
        4000,
        50,
        group_proportions=[1.0],
        path=True,
        de_prob=0.6,
        de_loc=1.5,
        library_loc=9,
        library_scale=0,
        outlier_prob=0,
        dropout=False,
        seed=1,
    )
    mean, end = adata.var["gene_mean"].to_numpy(), adata.var["de_factor_Group1"].to_numpy()
    assert (end != 1).sum() > 20  # one group alone has differences along a path
    position, counts = adata.obs["path_position"].to_numpy(), adata.layers["truth"].toarray()
    weight = mean * (1 + position[:, None] * (end - 1))
    expected = np.exp(9) * weight / weight.sum(axis=1, keepdims=True)
    for low in (0, 0.25, 0.5, 0.75):
        here = (position >= low) & (position < low + 0.25)
        strong = expected[here].mean(axis=0) > 20
        np.testing.assert_allclose(counts[here].mean(axis=0)[strong], expected[here].mean(axis=0)[strong], rtol=0.1)


def test_bent_genes_bridge_the_same_ends_with_the_variance_of_a_brownian_bridge():
    adata = simulate_splat(2, 20_000, path=True, path_nonlinear_prob=0.2, path_sigma=0.8, seed=0)
    genes = genes_of(adata)
    assert genes.nonlinear.size / 20_000 == pytest.approx(0.2, abs=0.01)
    straight = np.setdiff1d(np.arange(20_000), genes.nonlinear)
    end = genes.de[0]
    for position in (0.0, 0.25, 0.505, 1.0):
        bend = np.log(path_factor(genes, 0, position) / (1 + position * (end - 1)))
        np.testing.assert_allclose(bend[straight], 0, atol=1e-12)
        assert bend[genes.nonlinear].std() == pytest.approx(
            0.8 * np.sqrt(position * (1 - position)), rel=0.05, abs=1e-9
        )
        assert abs(bend[genes.nonlinear].mean()) < 0.03
    assert (path_factor(genes, 1, 0.5) > 0).all()


def test_a_straight_path_is_the_default_and_groups_ignore_path_settings():
    assert genes_of(simulate_splat(2, 100, path=True, seed=0)).nonlinear.size == 0
    plain = simulate_splat(20, 100, seed=0)
    same = simulate_splat(20, 100, path_nonlinear_prob=1, path_sigma=3, seed=0)
    assert (plain.X != same.X).nnz == 0
    assert "path_position" not in plain.obs
