"""The simulator has the moments of its model."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from scgacl_scvi.datasets import simulate_splat

QUIET = {"dropout": False, "library_scale": 0.0, "outlier_prob": 0.0}


def truth(adata):
    return adata.layers["truth"].toarray().astype(float)


def expected_counts(adata, cell_weight=1.0):
    """Counts of each gene at the cell's library size, from the annotations alone."""
    weight = np.atleast_2d(adata.var["gene_mean"].to_numpy() * cell_weight)
    return adata.obs["library_size"].to_numpy()[:, None] * weight / weight.sum(axis=1, keepdims=True)


def test_gene_means_follow_the_gamma_distribution():
    adata = simulate_splat(2, 20_000, mean_shape=0.6, mean_rate=0.3, outlier_prob=0, seed=0)
    assert stats.kstest(adata.var["gene_mean"], stats.gamma(0.6, scale=1 / 0.3).cdf).pvalue > 0.001
    assert (adata.var["outlier_factor"] == 1).all()


def test_outliers_are_the_median_times_a_lognormal_factor():
    plain = simulate_splat(2, 20_000, outlier_prob=0, seed=0).var["gene_mean"]
    var = simulate_splat(2, 20_000, outlier_prob=0.05, outlier_loc=4, outlier_scale=0.5, seed=0).var
    outlier = var["outlier_factor"] != 1
    assert outlier.mean() == pytest.approx(0.05, abs=0.006)
    assert stats.kstest(np.log(var["outlier_factor"][outlier]), stats.norm(4, 0.5).cdf).pvalue > 0.001
    np.testing.assert_allclose(var["gene_mean"][outlier], var["outlier_factor"][outlier] * np.median(plain))
    np.testing.assert_array_equal(var["gene_mean"][~outlier], plain[~outlier])


def test_library_sizes_are_lognormal_and_are_the_expected_totals():
    adata = simulate_splat(4000, 100, library_loc=9, library_scale=0.4, outlier_prob=0, dropout=False, seed=0)
    log_library = np.log(adata.obs["library_size"])
    assert stats.kstest(log_library, stats.norm(9, 0.4).cdf).pvalue > 0.001
    ratio = truth(adata).sum(axis=1) / adata.obs["library_size"]
    assert ratio.mean() == pytest.approx(1, abs=4 * ratio.std() / np.sqrt(4000))


def test_expected_counts_are_library_size_times_the_share_of_the_gene():
    adata = simulate_splat(3000, 200, group_proportions=[1.0], library_loc=8, dropout=False, seed=1)
    counts, mean = truth(adata), expected_counts(adata)
    error = (counts - mean).mean(axis=0) / (counts.std(axis=0) / np.sqrt(3000) + 1e-12)
    tested = mean.mean(axis=0) > 0.5  # enough counts for a normal error
    assert tested.sum() > 100
    assert stats.kstest(error[tested], stats.norm.cdf).pvalue > 0.001


@pytest.mark.parametrize(("common", "df"), [(0.1, np.inf), (0.6, np.inf), (0.3, 8.0)])
def test_variance_is_mean_plus_squared_bcv_times_squared_mean(common, df):
    adata = simulate_splat(
        4000, 200, group_proportions=[1.0], bcv_common=common, bcv_df=df, library_loc=9, seed=2, **QUIET
    )
    mean = expected_counts(adata)[0]
    bcv = (common + 1 / np.sqrt(mean)) * adata.var["bcv_scale"].to_numpy()
    tested = mean > 2
    ratio = (truth(adata).var(axis=0) / (mean + bcv**2 * mean**2))[tested]
    assert tested.sum() > 100
    assert np.median(ratio) == pytest.approx(1, abs=0.03)
    assert np.abs(np.log(ratio)).max() < 0.6


def test_true_counts_are_negative_binomial():
    adata = simulate_splat(5000, 20, group_proportions=[1.0], library_loc=6, bcv_df=np.inf, seed=3, **QUIET)
    mean = expected_counts(adata)[0]
    size = 1 / (0.1 + 1 / np.sqrt(mean)) ** 2
    zero = (1 + mean / size) ** -size
    error = ((truth(adata) == 0).mean(axis=0) - zero) / np.sqrt(zero * (1 - zero) / 5000 + 1e-12)
    assert np.abs(error).max() < 4


def test_dispersion_is_scaled_by_an_inverse_chi_square():
    scale = simulate_splat(2, 20_000, bcv_df=12, seed=0).var["bcv_scale"]
    assert stats.kstest(12 / scale**2, stats.chi2(12).cdf).pvalue > 0.001
    assert (simulate_splat(2, 50, bcv_df=np.inf, seed=0).var["bcv_scale"] == 1).all()


def test_differential_expression_has_the_stated_share_direction_and_size():
    adata = simulate_splat(
        2,
        20_000,
        group_proportions=[0.5, 0.5],
        de_prob=[0.1, 0.4],
        de_down_prob=[0.5, 0.2],
        de_loc=[0.1, 1.0],
        de_scale=[0.4, 0.3],
        seed=0,
    )
    for group, prob, down, loc, scale in [(1, 0.1, 0.5, 0.1, 0.4), (2, 0.4, 0.2, 1.0, 0.3)]:
        factor = adata.var[f"de_factor_Group{group}"]
        changed = factor[factor != 1]
        assert changed.size / 20_000 == pytest.approx(prob, abs=0.015)
        assert (changed < 1).mean() == pytest.approx(down, abs=0.04)
        assert stats.kstest(np.abs(np.log(changed)), stats.foldnorm(loc / scale, scale=scale).cdf).pvalue > 0.001


def test_an_up_regulated_gene_never_falls_and_a_down_regulated_one_never_rises():
    var = simulate_splat(2, 2000, group_proportions=[0.5, 0.5], de_prob=1, de_down_prob=[0, 1], seed=0).var
    assert (var["de_factor_Group1"] > 1).all()
    assert (var["de_factor_Group2"] < 1).all()


def test_group_means_have_the_ratio_of_their_factors():
    adata = simulate_splat(
        3000, 100, group_proportions=[0.5, 0.5], de_prob=0.5, de_loc=1, library_loc=9, seed=4, **QUIET
    )
    counts, var, group = truth(adata), adata.var, adata.obs["group"]
    means = {}
    for name in ("Group1", "Group2"):
        expected = expected_counts(adata, var[f"de_factor_{name}"].to_numpy())[0]
        means[name] = counts[group == name].mean(axis=0)
        strong = expected > 20
        np.testing.assert_allclose(means[name][strong], expected[strong], rtol=0.08)
    # All genes take part in the library size, so ratios are those of the factors up to one number for all genes.
    log_ratio = np.log(means["Group2"] / means["Group1"]) - np.log(var["de_factor_Group2"] / var["de_factor_Group1"])
    strong = np.minimum(means["Group1"], means["Group2"]) > 20
    assert log_ratio[strong].std() < 0.04
    assert strong.sum() > 30


def test_one_group_differs_from_nothing():
    adata = simulate_splat(5, 100, group_proportions=[1.0], de_prob=1, seed=0)
    assert (adata.var["de_factor_Group1"] == 1).all()


def test_groups_and_batches_have_their_proportions_and_are_independent():
    adata = simulate_splat(20_000, 1, group_proportions=[0.6, 0.3, 0.1], batch_proportions=[0.8, 0.2], seed=0)
    assert adata.obs["group"].value_counts(normalize=True, sort=False).to_list() == pytest.approx(
        [0.6, 0.3, 0.1], abs=0.015
    )
    share = adata.obs.groupby("group", observed=True)["batch"].agg(lambda batch: (batch == "Batch1").mean())
    assert share.to_list() == pytest.approx([0.8] * 3, abs=0.04)


def test_batch_factors_have_their_distribution_and_multiply_the_mean():
    var = simulate_splat(2, 20_000, n_batches=2, batch_loc=0.1, batch_scale=0.1, seed=0).var
    for batch in ("Batch1", "Batch2"):
        log_factor = np.log(var[f"batch_factor_{batch}"])
        assert stats.kstest(np.abs(log_factor), stats.foldnorm(1, scale=0.1).cdf).pvalue > 0.001
        assert (log_factor < 0).mean() == pytest.approx(0.5, abs=0.015)

    adata = simulate_splat(2000, 100, group_proportions=[1.0], n_batches=2, batch_loc=1, library_loc=9, seed=5, **QUIET)
    for batch in ("Batch1", "Batch2"):
        expected = expected_counts(adata, adata.var[f"batch_factor_{batch}"].to_numpy())[0]
        mean = truth(adata)[adata.obs["batch"] == batch].mean(axis=0)
        np.testing.assert_allclose(mean[expected > 20], expected[expected > 20], rtol=0.1)


@pytest.mark.parametrize(("midpoint", "shape"), [(7.6, -1.0), (8.0, -2.5), (8.0, 1.5)])
def test_dropout_follows_the_logistic_curve_of_log_expression(midpoint, shape):
    # With counts in the hundreds and more, the count tells the expression behind it to a few percent.
    adata = simulate_splat(
        400, 500, library_loc=np.log(500 * 3000), dropout_midpoint=midpoint, dropout_shape=shape, seed=6
    )
    counts, lost = truth(adata), adata.layers["dropout_mask"].toarray()
    edges = np.quantile(counts[counts > 300], np.linspace(0, 1, 11))
    for low, high in zip(edges, edges[1:], strict=False):
        bin_ = (counts >= low) & (counts < high)
        curve = expit(shape * (np.log(counts[bin_]) - midpoint))
        assert lost[bin_].mean() == pytest.approx(curve.mean(), abs=0.015)


def test_dropout_falls_with_expression_by_default():
    adata = simulate_splat(seed=0)
    counts, lost = truth(adata), adata.layers["dropout_mask"].toarray()
    shares = [lost[(counts >= low) & (counts < 4 * low)].mean() for low in (1, 4, 16, 64, 256)]
    assert (np.diff(shares) < 0).all()
    assert shares[0] > 0.6
    assert shares[-1] < 0.03
