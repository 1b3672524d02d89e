import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scgacl_scvi import pl
from scgacl_scvi.evaluate import lognorm


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    truth = rng.poisson(rng.gamma(2.0, 2.0, 8) * rng.lognormal(0, 0.5, (60, 1)))
    counts = truth * (rng.random(truth.shape) < 0.5)
    adata = ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {"cell_type": ["T", "B", "NK"] * 20, "depth": counts.sum(1)}, index=[f"c{i}" for i in range(60)]
        ),
        var=pd.DataFrame(index=[f"g{i}" for i in range(8)]),
    )
    adata.layers["truth"] = truth
    adata.layers["scgacl"] = lognorm(truth + 0.5)
    return adata


def points(ax):
    return np.vstack([collection.get_offsets() for collection in ax.collections])


def test_counts_are_shown_on_the_lognorm_scale_of_all_genes(adata, drawn):
    ax = pl.gene_scatter(adata, "g1", "g5")
    np.testing.assert_allclose(points(ax), lognorm(adata.X)[:, [1, 5]].toarray(), rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("g1 (lognorm)", "g5 (lognorm)")
    assert drawn(ax) > 20


def test_imputed_values_are_shown_as_stored(adata):
    ax = pl.gene_scatter(adata, "g1", "g5", layer="scgacl")
    np.testing.assert_allclose(points(ax), adata.layers["scgacl"][:, [1, 5]])


def test_the_scale_can_be_forced(adata):
    ax = pl.gene_scatter(adata, "g1", "g5", layer="truth", scale="lognorm")
    np.testing.assert_allclose(points(ax), adata.layers["truth"][:, [1, 5]])
    with pytest.raises(ValueError, match="scale: got 'log'; use"):
        pl.gene_scatter(adata, "g1", "g5", scale="log")


def test_the_title_tells_correlation_and_zeros(adata):
    ax = pl.gene_scatter(adata, "g1", "g5", layer="truth")
    x, y = points(ax).T
    assert f"r = {np.corrcoef(x, y)[0, 1]:.2f}".replace("-", "−") in ax.get_title()
    assert f"{((x == 0) | (y == 0)).mean():.0%} of cells with a zero" in ax.get_title()


def test_labels_get_a_legend_and_numbers_a_colour_bar(adata, drawn):
    ax = pl.gene_scatter(adata, "g1", "g2", color="cell_type")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["B", "NK", "T"]
    assert len(points(ax)) == 60
    ax = pl.gene_scatter(adata, "g1", "g2", color="depth")
    assert ax.figure.axes[-1].get_ylabel() == "depth"
    assert drawn(ax) > 50


def test_before_after_and_truth_share_their_limits(adata, drawn):
    axes = pl.gene_scatter_before_after(adata, "g1", "g2", truth_layer="truth", color="cell_type")
    assert [ax.get_title().split("\n")[0] for ax in axes] == ["raw", "imputed", "truth"]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in axes}) == 1
    np.testing.assert_allclose(np.sort(points(axes[2])[:, 0]), np.sort(lognorm(adata.layers["truth"])[:, 1]), rtol=1e-6)
    assert all(ax.get_xlabel() == "g1 (lognorm)" for ax in axes)
    assert axes[0].get_ylabel() == "g2 (lognorm)"
    assert drawn(axes[0]) > 20
    assert len(pl.gene_scatter_before_after(adata, "g1", "g2")) == 2


def test_raw_counts_may_live_in_a_layer(adata):
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X * 0
    axes = pl.gene_scatter_before_after(adata, "g1", "g2", raw_layer="counts")
    np.testing.assert_allclose(points(axes[0]), lognorm(adata.layers["counts"])[:, [1, 2]].toarray(), rtol=1e-6)


def test_given_axes_are_used(adata):
    figure, axes = plt.subplots(1, 3)
    assert pl.gene_scatter(adata, "g1", "g2", ax=axes[0]) is axes[0]
    assert list(pl.gene_scatter_before_after(adata, "g1", "g2", ax=axes[1:])) == list(axes[1:])
    assert len(plt.get_fignums()) == 1
    with pytest.raises(ValueError, match=r"ax: this figure has 2 panel\(s\), got 3; pass 2"):
        pl.gene_scatter_before_after(adata, "g1", "g2", ax=axes)


def test_the_data_are_left_alone(adata):
    before = adata.copy()
    pl.gene_scatter_before_after(adata, "g1", "g2", truth_layer="truth", color="cell_type")
    assert (adata.X != before.X).nnz == 0
    assert set(adata.layers) == set(before.layers)
    assert adata.obs["cell_type"].dtype == before.obs["cell_type"].dtype
    assert not adata.uns


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gene_x": "cd3e"}, "gene_x: 'cd3e' is not in adata.var_names; check"),
        ({"layer": "magic"}, "layer: 'magic' is not in adata.layers; choose from"),
        ({"color": "type"}, "color: 'type' is not in adata.obs; choose from"),
    ],
)
def test_bad_input_is_named_with_a_remedy(adata, change, message):
    with pytest.raises(ValueError, match=message):
        pl.gene_scatter(adata, **({"gene_x": "g1", "gene_y": "g2"} | change))


def test_a_missing_imputation_says_how_to_make_it(adata):
    del adata.layers["scgacl"]
    with pytest.raises(ValueError, match="layer: 'scgacl' .* run model.get_imputed_expression"):
        pl.gene_scatter_before_after(adata, "g1", "g2")


def test_a_gene_name_must_be_unique(adata):
    adata.var_names = ["g1", "g1", *adata.var_names[2:]]
    with pytest.raises(ValueError, match="gene_y: 'g1' occurs 2 times; run adata.var_names_make_unique"):
        pl.gene_scatter(adata, "g2", "g1")
