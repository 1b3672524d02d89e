import numpy as np
import pytest
from tests.conftest import make_counts

from .conftest import KINDS, short_fit


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_filled_shares_are_those_of_the_matrices(models, kind):
    model = models[kind]
    report = model.gene_report()
    assert list(report.index) == list(model.adata.var_names)
    counts = np.asarray(model.adata.X)
    probability = model.get_dropout_probability(
        method="mixture" if kind in ("normal", "paper") else "posterior", return_type="numpy"
    )
    assert (report["n_cells"] == 60).all()
    np.testing.assert_array_equal(report["n_seen"], (counts > 0).sum(0))
    zeros = (counts == 0).sum(0)
    filled = ((counts == 0) & (probability >= 0.5)).sum(0)
    expected = np.where(zeros > 0, filled / np.maximum(zeros, 1), np.nan)
    np.testing.assert_allclose(report["share_filled"], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_each_gene_has_a_status_that_says_why(models, kind):
    report = models[kind].gene_report()
    assert report["status"].iloc[4] == "not imputed: seen in no cell"
    assert report["status"].iloc[5] == "not imputed: no zeros"
    filled = report["share_filled"] > 0
    assert report["status"][filled].str.startswith("imputed").all()
    assert report["status"][~filled].str.startswith("not imputed").all()
    assert (report["status"] == "imputed").equals(filled & (report["gain"] > 0))
    assert report.attrs["heldout_cells"] == ("training" if kind == "paper" else "validation")


def test_a_gene_whose_zeros_stay_says_in_how_many_cells_it_was_seen(models):
    report = models["nb"].gene_report(threshold=1.0)
    stays = (report["n_seen"] > 0) & (report["n_seen"] < 60)
    expected = [f"not imputed: seen in {n} of 60 cells" for n in report["n_seen"][stays]]
    assert report["status"][stays].tolist() == expected


def test_groups_add_up_to_the_whole(models):
    model = models["nb"]
    whole, parts = model.gene_report(), model.gene_report(groupby="cell_type")
    assert parts.index.names == ["label", "gene"]
    np.testing.assert_array_equal(parts["n_seen"].groupby("gene", sort=False).sum(), whole["n_seen"])
    given = model.gene_report(groupby=model.adata.obs["cell_type"].to_numpy())
    assert given.equals(parts)
    with pytest.raises(KeyError, match="groupby"):
        model.gene_report(groupby="nothing")
    with pytest.raises(ValueError, match="groupby"):
        model.gene_report(groupby=["a"])


def test_asked_for_genes_that_were_not_modelled_raise(models):
    names = models["nb"].adata.var_names
    assert list(models["nb"].gene_report(gene_list=[names[3], names[0]]).index) == [names[3], names[0]]
    with pytest.raises(KeyError, match="nogene"):
        models["nb"].gene_report(gene_list=[names[0], "nogene"])


def test_types_that_differ_are_gained_from_and_noise_is_not():
    rng = np.random.default_rng(0)
    adata = make_counts(n_cells=200, n_genes=40, seed=2)
    x = adata.X.toarray()
    x[:, 20:] = rng.poisson(3.0, (200, 20))  # the same in all cells
    adata.X = x
    model = short_fit(adata, "cell_type", gene_likelihood="nb")
    model.train(joint_epochs=15, enable_progress_bar=False)
    report = model.gene_report()
    assert report["gain"].iloc[:20].mean() > 0.05
    assert report["gain"].iloc[20:].mean() < 0.02
    assert (report["gain_se"] > 0).all()
