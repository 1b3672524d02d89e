"""scvi-tools' getters and criticism on our model: right, or refused with the reason."""

import numpy as np
import pandas as pd
import pytest
import torch
from scvi.model.base import RNASeqMixin
from tests.conftest import make_counts

from scgacl_scvi import SCGACL, datasets, evaluate, settings

from .conftest import KINDS, short_fit

COUNTS = ("nb", "zinb")
NORMAL = ("normal", "paper")


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_merit_are_finite_and_one_a_cell_where_asked_for(models, kind):
    model = models[kind]
    elbo = model.get_elbo(return_mean=False)
    assert np.asarray(elbo).shape == (60,)
    assert np.isfinite(np.asarray(elbo)).all()
    marginal = model.get_marginal_ll(n_mc_samples=2, return_mean=False)
    assert marginal.shape == (60,)
    assert torch.isfinite(marginal).all()
    error = model.get_reconstruction_error(indices=np.arange(7), return_mean=False)["reconstruction_loss"]
    assert np.asarray(error).shape == (7,)


@pytest.mark.parametrize("kind", KINDS)
def test_latent_getters_work_for_any_likelihood(models, kind):
    model = models[kind]
    mean, variance = model.get_latent_representation(return_dist=True)
    np.testing.assert_allclose(mean, model.get_latent_representation(), rtol=1e-5)
    assert (variance > 0).all()
    assert model.get_latent_representation(give_mean=False, indices=[3, 1]).shape == (2, 4)
    posterior = model.get_aggregated_posterior(indices=np.arange(20))
    assert torch.isfinite(posterior.log_prob(torch.as_tensor(mean))).all()


@pytest.mark.filterwarnings("ignore:Using 128 after:UserWarning")  # of scvi-tools 1.5 about its own call
def test_differential_abundance_works():
    adata = make_counts()
    model = short_fit(adata, gene_likelihood="nb")
    model.differential_abundance(sample_key="batch")
    assert np.isfinite(adata.obsm["da_log_probs"].to_numpy()).all()


@pytest.mark.parametrize("kind", COUNTS)
def test_normalised_expression_is_a_share_of_the_library(models, kind):
    model = models[kind]
    shares = model.get_normalized_expression()
    assert list(shares.columns) == list(model.adata.var_names)
    if kind == "nb":
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-4)
    torch.manual_seed(0)
    one = model.get_normalized_expression(return_numpy=True)
    torch.manual_seed(0)
    np.testing.assert_allclose(model.get_normalized_expression(library_size=1e4, return_numpy=True), one * 1e4, 1e-4)
    torch.manual_seed(0)
    at_own_depth = model.get_normalized_expression(library_size="latent", return_numpy=True)
    np.testing.assert_allclose(at_own_depth, one * model.get_latent_library_size(give_mean=False), rtol=1e-3, atol=1e-5)
    samples = model.get_normalized_expression(n_samples=3, return_mean=False, indices=[4, 2], return_numpy=True)
    assert samples.shape == (3, 2, 30)
    assert model.get_normalized_expression(n_samples_overall=11, return_numpy=True).shape == (11, 30)
    assert model.get_normalized_expression(gene_list=model.adata.var_names[3]).shape == (60, 1)
    with pytest.raises(KeyError, match="nogene"):
        model.get_normalized_expression(gene_list=["nogene"])


@pytest.mark.parametrize("kind", COUNTS)
def test_likelihood_parameters_are_given(models, kind):
    found = models[kind].get_likelihood_parameters(n_samples=2, give_mean=True)
    assert set(found) == {"mean", "dispersions", *(["dropout"] if kind == "zinb" else [])}
    assert found["mean"].shape == (60, 30)
    assert all((values >= 0).all() for values in found.values())


@pytest.mark.parametrize("kind", NORMAL)
def test_a_normal_likelihood_refuses_what_needs_counts(models, kind):
    model = models[kind]
    for method in (
        "get_normalized_expression",
        "differential_expression",
        "get_feature_correlation_matrix",
        "get_likelihood_parameters",
    ):
        with pytest.raises(ValueError, match=f"`{method}` needs a count likelihood"):
            getattr(model, method)()
    with pytest.raises(ValueError, match="no counts"):
        evaluate.for_criticism(model)


@pytest.mark.parametrize("kind", KINDS)
def test_importance_weights_are_refused_for_a_mixture_prior(models, kind):
    model = models[kind]
    with pytest.raises(NotImplementedError, match="standard normal prior"):
        model.get_importance_weights(None, None, None, None, None)
    if kind in COUNTS:
        for method in (model.get_normalized_expression, model.differential_expression):
            with pytest.raises(NotImplementedError, match="mixture"):
                method(weights="importance")


def test_the_library_size_is_observed(models):
    model = models["nb"]
    with pytest.raises(RuntimeError, match="give_mean=False"):
        model.get_latent_library_size()
    library = np.asarray(model.adata.X.sum(1)).reshape(-1, 1)
    np.testing.assert_allclose(model.get_latent_library_size(give_mean=False), library)
    np.testing.assert_allclose(model.get_latent_library_size(indices=[5, 0], give_mean=False), library[[5, 0]])
    sized = short_fit(make_counts(), setup={"size_factor_key": "size"}, gene_likelihood="nb")
    expected = sized.adata.obs["size"].to_numpy()[:, None] * float(sized.module.median_library)
    np.testing.assert_allclose(sized.get_latent_library_size(give_mean=False), expected, rtol=1e-5)
    logged = make_counts()
    logged.X = np.log1p(logged.X.toarray())
    model = short_fit(logged, setup={"input_scale": "lognorm"})
    with pytest.raises(ValueError, match="not known"):
        model.get_latent_library_size(give_mean=False)


@pytest.fixture(scope="module")
def learnt() -> SCGACL:
    """Trained long enough for its means to say something."""
    before, settings._seed = settings._seed, 0
    adata = make_counts(200)
    adata.X = (
        adata.X.toarray()
    )  # the criticism of scvi-tools 1.4 fails on sparse fractional types, whole numbers or not
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    model.train(max_epochs=40, enable_progress_bar=False)
    settings._seed = before
    return model


@pytest.mark.parametrize("mode", ["vanilla", "change"])
def test_differential_expression_finds_what_differs(learnt, mode):
    before = learnt.adata.obs.copy()
    result = learnt.differential_expression(groupby="cell_type", group1="A", group2="B", mode=mode, silent=True)
    assert sorted(result.index) == sorted(learnt.adata.var_names)
    raw = np.log2((result["raw_normalized_mean1"] + 1) / (result["raw_normalized_mean2"] + 1))
    assert np.corrcoef(raw, np.log2(result["scale1"] / result["scale2"]))[0, 1] > 0.8
    added = [column for column in learnt.adata.obs if column not in before]
    assert all(column.startswith("_scvi") for column in added)


@pytest.mark.parametrize("kind", COUNTS)
def test_differential_expression_takes_groups_and_cells(models, kind):
    model = models[kind]
    every = model.differential_expression(groupby="cell_type", silent=True, batch_size=20)
    assert set(every["comparison"]) == {"A vs Rest", "B vs Rest", "C vs Rest"}
    by_cells = model.differential_expression(idx1=np.arange(60) < 20, idx2=np.arange(60) >= 40, silent=True)
    assert sorted(by_cells.index) == sorted(model.adata.var_names)
    with pytest.raises(KeyError, match="nokey"):
        model.differential_expression(groupby="nokey")


def test_correlations_go_through_the_gate():
    """scvi-tools' getter correlates genes of which at most one differs between the two types; ours does not."""
    adata = datasets.simulate_null(n_cells=300, n_genes=60, seed=0)
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    model.train(max_epochs=30, enable_progress_bar=False)
    ours = model.get_feature_correlation_matrix().abs().to_numpy()
    theirs = RNASeqMixin.get_feature_correlation_matrix(model).abs().to_numpy()
    differential = adata.var["differential"].to_numpy()
    true = np.triu(np.outer(differential, differential), 1)
    false = np.triu(~np.outer(differential, differential), 1)
    assert (theirs[false] > 0.1).mean() > 0.1
    assert (ours[false] > 0.1).mean() < 0.01
    assert ours[true].mean() > 0.4


@pytest.mark.parametrize("kind", ["spearman", "pearson"])
def test_the_correlation_matrix_is_one(models, kind):
    model = models["zinb"]
    asked = {"indices": np.arange(40), "n_samples": 2, "correlation_type": kind}
    found = model.get_feature_correlation_matrix(**asked)
    assert list(found.index) == list(found.columns) == list(model.adata.var_names)
    values = found.to_numpy()
    np.testing.assert_allclose(values, values.T)
    np.testing.assert_allclose(np.diag(values), 1, rtol=1e-6)
    pd.testing.assert_frame_equal(found, model.get_feature_correlation_matrix(**asked))
    for wrong in ({"correlation_type": "kendall"}, {"n_samples": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            model.get_feature_correlation_matrix(**wrong)


def test_an_untrained_model_refuses(adata):
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    for method in ("get_normalized_expression", "differential_expression", "get_feature_correlation_matrix"):
        with pytest.raises(RuntimeError):
            getattr(model, method)()
    with pytest.raises(RuntimeError):
        evaluate.for_criticism(model)


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning", "ignore::UserWarning:scvi")
@pytest.mark.parametrize("kind", COUNTS)
def test_scvi_tools_criticism_takes_the_model(models, kind):
    from scvi.criticism import PosteriorPredictiveCheck

    model = models[kind]
    adata = model.adata
    check = PosteriorPredictiveCheck(adata, {"SCGACL": evaluate.for_criticism(model), "as it is": model}, n_samples=4)
    check.coefficient_of_variation("cells")
    check.coefficient_of_variation("features")
    check.zero_fraction()
    zeros = check.metrics["zero_fraction"]
    assert set(zeros) == {"SCGACL", "as it is", "Raw"}
    assert np.isfinite(zeros.to_numpy()).all()
    if kind == "zinb":  # the dropout of the data belongs to what is compared with them
        shown = zeros.mean()
        assert abs(shown["SCGACL"] - shown["Raw"]) < abs(shown["as it is"] - shown["Raw"])


def test_criticism_leaves_the_rest_of_the_model_as_it_is(models):
    seen = evaluate.for_criticism(models["nb"])
    assert seen.adata is models["nb"].adata
    assert seen.module is models["nb"].module
    alike = seen.posterior_predictive_sample(n_samples=2).todense()
    given = models["nb"].posterior_predictive_sample(n_samples=2, given_counts=False).todense()
    np.testing.assert_array_equal(alike, given)


@pytest.mark.filterwarnings("ignore")  # scvi-tools', scanpy's and scikit-learn's own
def test_scvi_tools_report_of_criticism_takes_the_model(learnt, tmp_path):
    import json

    pytest.importorskip("leidenalg", reason="scvi-tools' criticism report needs leidenalg")
    from scvi.criticism import create_criticism_report

    create_criticism_report(
        evaluate.for_criticism(learnt), n_samples=2, label_key="cell_type", save_folder=str(tmp_path)
    )
    assert "Pearson" in json.loads((tmp_path / "metrics.json").read_text())["cell_wise_cv"]
