import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import sparse

from scgacl_scvi import pl


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    counts = rng.poisson(np.geomspace(0.05, 20, 200) * rng.lognormal(0, 0.4, (500, 1))).astype(np.float32)
    counts[:, 0] = 0
    adata = ad.AnnData(sparse.csr_matrix(counts))
    adata.layers["scgacl"] = np.where(rng.random(counts.shape) < 0.5, counts + 1, counts)
    return adata


def test_each_gene_stands_at_its_mean_count_before_and_after(adata, drawn):
    ax = pl.dropout_curve(adata)
    before, after = (c.get_offsets() for c in ax.collections)
    counts = adata.X.toarray()[:, 1:]  # the gene without a count is not shown
    np.testing.assert_allclose(before, np.c_[counts.mean(0), (counts == 0).mean(0)], rtol=1e-6)
    np.testing.assert_allclose(after[:, 0], before[:, 0])
    np.testing.assert_allclose(after[:, 1], (adata.layers["scgacl"][:, 1:] == 0).mean(0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean raw count per cell", "share of cells with a zero")
    assert ax.get_xscale() == "log"
    assert drawn(ax) > 20


def test_counts_without_dropout_lie_on_the_line(adata):
    ax = pl.dropout_curve(adata)
    before = ax.collections[0].get_offsets()
    x, y = ax.get_lines()[0].get_data()
    difference = before[:, 1] - np.interp(np.log(before[:, 0]), np.log(x), y)
    assert abs(difference.mean()) < 0.01
    assert abs(difference).max() < 0.1


def test_the_legend_tells_the_share_of_zeros(adata):
    adata.layers["mine"] = sparse.csr_matrix(np.ones(adata.shape))
    names = [text.get_text() for text in pl.dropout_curve(adata, "mine").get_legend().get_texts()]
    zeros = (adata.X.toarray()[:, 1:] == 0).mean()
    assert names == [f"before: {zeros:.0%} zeros", "after (mine): 0% zeros", "Poisson sampling alone"]


def test_given_axes_are_used(adata):
    _, given = plt.subplots()
    assert pl.dropout_curve(adata, ax=given) is given


def test_bad_input_is_named_with_a_remedy(adata):
    with pytest.raises(ValueError, match="raw_layer: 'counts' is not in adata.layers; choose from"):
        pl.dropout_curve(adata, raw_layer="counts")
    adata.X = adata.X * 0
    with pytest.raises(ValueError, match="adata: no gene has a count; pass raw counts"):
        pl.dropout_curve(adata)
