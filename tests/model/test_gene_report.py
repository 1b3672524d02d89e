import numpy as np
import pytest
from tests.conftest import make_counts

from scgacl_scvi._keys import LAYER, UNS
from scgacl_scvi.train._gate_fit import MIN_EVIDENCE

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
    filled = ((counts == 0) & (probability >= (0.05 if kind == "zinb" else 0.5))).sum(0)
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
    closed = report["evidence"] < MIN_EVIDENCE
    assert report["status"].str.startswith("imputed with its mean: ").equals(filled & closed)
    assert (report["status"] == "imputed").equals(filled & ~closed & (report["gain"] > 0))
    assert report.attrs["heldout_cells"] == ("training" if kind == "paper" else "validation")


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_is_that_of_the_gate_which_models_of_lognorm_values_do_not_have(models, kind):
    gate = models[kind].module.gate
    genes = models[kind].adata.var_names[[7, 0, 3]]
    evidence = models[kind].gene_report(gene_list=genes)["evidence"].to_numpy()
    if kind in ("normal", "paper"):
        assert not gate.fitted
        assert np.isnan(evidence).all()
    else:
        assert gate.fitted
        np.testing.assert_array_equal(evidence, gate.evidence.numpy()[[7, 0, 3]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_threshold_is_recorded_and_stores_the_layer(models, kind):
    model = models[kind]
    default = 0.05 if kind == "zinb" else 0.5
    default_of = {}
    for threshold in (None, default, 0.35):
        adata = model.adata.copy()
        adata.layers.pop(LAYER, None)
        values = model.get_imputed_expression(adata, threshold=threshold, return_type="frame")
        assert values.attrs[UNS]["threshold"] == (default if threshold is None else threshold)
        assert (LAYER in adata.layers) == (threshold != 0.35)
        if threshold != 0.35:
            assert adata.uns[UNS][LAYER]["threshold"] == default
        default_of[threshold] = values.to_numpy()
    np.testing.assert_array_equal(default_of[None], default_of[default])
    if kind == "zinb":
        assert (default_of[None] > 0).sum() > (default_of[0.35] > 0).sum()


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
    assert (report["evidence"].iloc[:20] >= MIN_EVIDENCE).mean() > 0.7
    assert (report["evidence"].iloc[20:] < MIN_EVIDENCE).mean() > 0.9
    noise = report.iloc[20:][lambda genes: (genes["share_filled"] > 0) & (genes["evidence"] < MIN_EVIDENCE)]
    assert len(noise) > 5
    assert noise["status"].str.startswith("imputed with its mean: ").all()
