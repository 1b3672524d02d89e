"""What scvi-tools promises of any of its models, on its own synthetic data."""

import anndata
import numpy as np
import pandas as pd
import pytest
import rich.pretty  # noqa: F401, scvi-tools uses it without importing it
import scvi
import torch
from anndata import AnnData
from scipy import sparse

from scgacl_scvi import SCGACL

from .conftest import SHORT

SIZES = {"n_latent": 5, "n_hidden": 16, "n_hidden_discriminator": 16}
MANY = {
    "batch_key": "batch",
    "labels_key": "labels",
    "categorical_covariate_keys": ["site", "sex"],
    "continuous_covariate_keys": ["age", "stress"],
}


def synthetic(seed: int = 0, n_batches: int = 2, form: str | None = None) -> AnnData:
    """Two or more batches of 40 cells, 30 genes, three labels, and covariates."""
    np.random.seed(seed)
    adata = scvi.data.synthetic_iid(
        batch_size=40, n_genes=30, n_proteins=0, n_regions=0, n_batches=n_batches, sparse_format=form
    )
    rng = np.random.default_rng(seed)
    adata.obs["site"] = rng.choice(["a", "b", "c"], adata.n_obs)
    adata.obs["sex"] = rng.choice(["f", "m"], adata.n_obs)
    adata.obs["age"] = rng.normal(size=adata.n_obs)
    adata.obs["stress"] = rng.normal(size=adata.n_obs)
    return adata


def fit(adata: AnnData, model: dict | None = None, train: dict | None = None, **setup) -> SCGACL:
    SCGACL.setup_anndata(adata, **setup)
    fitted = SCGACL(adata, **{**SIZES, "gene_likelihood": "nb", **(model or {})})
    fitted.train(**{**SHORT, **(train or {})})
    return fitted


@pytest.fixture(scope="module")
def reference() -> SCGACL:
    scvi.settings._seed = 0
    return fit(synthetic(), batch_key="batch", labels_key="labels")


def public_getters(model: SCGACL) -> dict:
    """Every public method that reads from a trained model, called as a user would."""
    return {
        "get_imputed_expression": model.get_imputed_expression,
        "get_dropout_probability": model.get_dropout_probability,
        "get_imputed_uncertainty": lambda: model.get_imputed_uncertainty(n_samples=2),
        "posterior_predictive_sample": lambda: model.posterior_predictive_sample(n_samples=2),
        "predict_cluster": model.predict_cluster,
        "gene_report": model.gene_report,
        "get_latent_representation": model.get_latent_representation,
        "get_normalized_expression": lambda: model.get_normalized_expression(transform_batch="batch_1"),
        "get_likelihood_parameters": model.get_likelihood_parameters,
        "get_feature_correlation_matrix": lambda: model.get_feature_correlation_matrix(n_samples=1),
        "get_latent_library_size": lambda: model.get_latent_library_size(give_mean=False),
        "get_aggregated_posterior": model.get_aggregated_posterior,
        "get_elbo": model.get_elbo,
        "get_marginal_ll": lambda: model.get_marginal_ll(n_mc_samples=2),
        "get_reconstruction_error": model.get_reconstruction_error,
        "differential_expression": lambda: model.differential_expression(groupby="labels", silent=True),
        "get_var_names": model.get_var_names,
        "get_from_registry": lambda: model.get_from_registry(model.adata, "X"),
        "get_anndata_manager": lambda: model.get_anndata_manager(model.adata, required=True),
        "view_anndata_setup": lambda: model.view_anndata_setup() or 1,
        "get_state_registry": lambda: model.get_state_registry("batch"),
        "get_setup_arg": lambda: model.get_setup_arg("batch_key"),
        "view_setup_method_args": lambda: model.view_setup_method_args() or 1,
    }


REFUSED = {"get_importance_weights"}
BROKEN = {"view_registry"}  # on every model of scvi-tools 1.4


def test_every_public_getter_works(reference):
    getters = public_getters(reference)
    for name, call in getters.items():
        assert call() is not None, name
    reading = {name for name in dir(SCGACL) if name.startswith(("get_", "view_", "predict_", "posterior_"))}
    assert reading - set(getters) == {"view_setup_args", "get_normalized_function_name", *REFUSED, *BROKEN}


@pytest.mark.parametrize("kind", ["nb", "zinb", "normal"])
@pytest.mark.parametrize("form", [None, "csr_matrix", "csc_matrix"])
def test_any_format_and_likelihood_trains(kind, form):
    model = fit(synthetic(form=form), {"gene_likelihood": kind}, batch_key="batch")
    assert model.is_trained
    assert model.get_imputed_expression().shape == (80, 30)


def test_a_layer_trains():
    adata = synthetic()
    adata.layers["raw"] = sparse.csr_matrix(adata.X)
    adata.X = np.full_like(adata.X, -1.0)
    assert fit(adata, layer="raw").get_latent_representation().shape == (80, 5)


def test_history_and_split_are_kept(reference):
    assert {"train_loss", "elbo_train", "elbo_validation"} <= set(reference.history)
    assert len(reference.history["elbo_train"]) == 6
    parts = [reference.train_indices, reference.validation_indices, reference.test_indices]
    assert sorted(np.concatenate(parts).tolist()) == list(range(80))
    n = len(reference.validation_indices)
    assert n == 8


def test_shares_of_cells_are_those_asked_for():
    model = fit(synthetic(), train={"train_size": 0.5, "validation_size": 0.2, "shuffle_set_split": False})
    assert [len(x) for x in (model.train_indices, model.validation_indices, model.test_indices)] == [40, 16, 24]
    assert sorted(model.validation_indices) == list(range(16))
    whole = fit(synthetic(), train={"train_size": 1.0})
    assert len(whole.validation_indices) == 0
    assert whole.get_elbo(indices=whole.train_indices) is not None


def test_training_goes_on_where_it_stopped():
    model = fit(synthetic())
    first = model.get_latent_representation()
    model.train(max_epochs=2, enable_progress_bar=False)
    assert len(model.history["elbo_train"]) == 8
    assert not np.array_equal(model.get_latent_representation(), first)


def test_trainer_arguments_callbacks_and_checkpoints_work(tmp_path):
    from lightning.pytorch.callbacks import LearningRateMonitor
    from lightning.pytorch.loggers import CSVLogger

    adata = synthetic()
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, **SIZES, gene_likelihood="nb")
    model.train(
        **SHORT,
        accelerator="cpu",
        devices=1,
        check_val_every_n_epoch=1,
        callbacks=[LearningRateMonitor()],
        logger=CSVLogger(tmp_path),
        early_stopping=True,
        plan_kwargs={"weight_adversarial": 0.5},
    )
    assert list(tmp_path.rglob("metrics.csv"))
    assert model.trainer.current_epoch <= 6


def test_covariates_of_all_kinds_enter_every_getter():
    model = fit(synthetic(), **MANY)
    for name, call in public_getters(model).items():
        assert call() is not None, name
    changed = synthetic()
    changed.obs["site"] = "a"
    changed.obs["age"] += 2
    kwargs = {"policy": "denoise", "return_numpy": True}
    ungated = fit(synthetic(), train={"gate_genes": False}, **MANY)
    assert not np.allclose(
        ungated.get_imputed_expression(changed, **kwargs), ungated.get_imputed_expression(**kwargs), rtol=1e-4
    )


@pytest.mark.parametrize("batch", ["batch_1", ["batch_0", "batch_1"], None])
def test_another_batch_can_be_asked_for(reference, batch):
    for values in (
        reference.get_normalized_expression(transform_batch=batch),
        reference.get_imputed_expression(transform_batch=batch, policy="denoise"),
    ):
        assert values.shape == (80, 30)


def test_an_unknown_batch_is_refused(reference):
    with pytest.raises(ValueError, match="nobatch"):
        reference.get_normalized_expression(transform_batch="nobatch")


def test_unseen_categories_are_refused(reference):
    other = synthetic()
    other.obs["batch"] = "batch_9"
    with pytest.raises(ValueError, match="batch_9"):
        reference.get_elbo(other)


def test_genes_in_another_order_are_refused(reference):
    other = synthetic()
    with pytest.raises(ValueError, match=r"model's 30 genes, in its order"):
        reference.get_latent_representation(other[:, ::-1].copy())


def test_copies_and_other_data_give_what_the_same_cells_give(reference):
    latent = reference.get_latent_representation()
    np.testing.assert_allclose(reference.get_latent_representation(reference.adata.copy()), latent, rtol=1e-4)
    np.testing.assert_allclose(reference.get_latent_representation(synthetic()), latent, rtol=1e-4, atol=1e-5)
    dense = synthetic()
    dense.X = sparse.csr_matrix(dense.X)
    np.testing.assert_allclose(reference.get_latent_representation(dense, batch_size=7), latent, rtol=1e-3, atol=1e-4)


def test_two_models_of_the_same_data_live_side_by_side():
    adata = synthetic()
    one = fit(adata, batch_key="batch")
    before = one.get_imputed_expression(layer_key=None, return_numpy=True)
    two = fit(adata, labels_key="labels")
    assert (one.summary_stats.n_batch, two.summary_stats.n_batch) == (2, 1)
    np.testing.assert_array_equal(one.get_imputed_expression(layer_key=None, return_numpy=True), before)
    assert two.module.n_labels == 3
    two.deregister_manager(adata)


def test_data_that_were_not_set_up_are_refused():
    with pytest.raises(ValueError, match="setup_anndata"):
        SCGACL(synthetic())
    adata = synthetic()
    SCGACL.setup_anndata(adata)
    with pytest.raises(ValueError, match="copy"):
        SCGACL(adata.copy())


@pytest.mark.parametrize("mode", ["vanilla", "change"])
def test_differential_expression_in_all_its_forms(reference, mode):
    adata, kwargs = reference.adata, {"mode": mode, "silent": True}
    for asked in (
        {"groupby": "labels", "group1": "label_1"},
        {"groupby": "labels", "group1": "label_1", "group2": "label_2"},
        {"groupby": "labels", "group1": ["label_1", "label_0"]},
        {"idx1": [0, 1, 2]},
        {"idx1": [0, 1, 2], "idx2": [5, 6]},
        {"idx1": "labels == 'label_1'", "idx2": "labels == 'label_2'"},
        {"groupby": "labels", "batch_correction": True},
        {"groupby": "labels", "batch_size": 7, "all_stats": False},
        {"groupby": "labels", "group1": "label_1", "filter_outlier_cells": True},
    ):
        result = reference.differential_expression(**asked, **kwargs)
        assert isinstance(result, pd.DataFrame)
        assert set(result.index) == set(adata.var_names), asked
    wrapped = reference.differential_expression(adata, "labels", "label_1", **kwargs)
    assert len(wrapped) == 30


def test_it_is_saved_with_and_without_data(reference, tmp_path):
    latent = reference.get_latent_representation()
    reference.save(tmp_path / "m", save_anndata=True, prefix="p_")
    for loaded in (
        SCGACL.load(tmp_path / "m", prefix="p_"),
        SCGACL.load(tmp_path / "m", prefix="p_", adata=synthetic()),
        SCGACL.load(tmp_path / "m", prefix="p_", accelerator="cpu", device="auto"),
    ):
        np.testing.assert_allclose(loaded.get_latent_representation(), latent, rtol=1e-4, atol=1e-5)
        assert loaded.is_trained
        assert loaded.train_indices.tolist() == reference.train_indices.tolist()
    assert SCGACL.load_registry(str(tmp_path / "m"), prefix="p_")["model_name"] == "SCGACL"
    SCGACL.view_setup_args(str(tmp_path / "m"), prefix="p_")
    other = synthetic()
    other.var_names = [f"other{i}" for i in range(30)]
    with (
        pytest.warns(UserWarning, match="var_names"),
        pytest.raises(ValueError, match="model's 30 genes"),
    ):
        SCGACL.load(tmp_path / "m", prefix="p_", adata=other)


def test_backed_data_train_and_impute(tmp_path):
    synthetic(form="csr_matrix").write_h5ad(tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r+")
    model = fit(adata, batch_key="batch", labels_key="labels")
    getters = public_getters(model)
    del getters["differential_expression"]
    for name, call in getters.items():
        assert call() is not None, name
    with pytest.raises(ValueError, match="all_stats=False"):
        model.differential_expression(groupby="labels", silent=True)
    assert len(model.differential_expression(groupby="labels", all_stats=False, silent=True)) == 90
    adata.file.close()


def test_new_cells_of_a_known_batch_can_be_queried(reference, tmp_path):
    """The simplest form; what query training leaves alone is another test's matter."""
    reference.save(tmp_path / "m")
    for source in (reference, str(tmp_path / "m")):
        query = synthetic(seed=1)
        model = SCGACL.load_query_data(query, source)
        assert isinstance(model, SCGACL)
        assert not model.is_trained
        assert model.summary_stats.n_batch == 2


def test_labels_may_be_missing_in_new_cells(reference):
    other = synthetic(seed=2)
    del other.obs["labels"]
    assert reference.get_imputed_expression(other).shape == (80, 30)


def test_one_seed_gives_one_model():
    one, two = (fit(synthetic(), batch_key="batch") for _ in range(2))
    scvi.settings._seed = 1
    other = fit(synthetic(), batch_key="batch")
    np.testing.assert_array_equal(one.get_latent_representation(), two.get_latent_representation())
    assert not np.array_equal(one.get_latent_representation(), other.get_latent_representation())


def test_a_model_says_what_it_is(reference, capsys):
    assert repr(reference) == ""  # scvi-tools prints its summary
    assert "Trained" in reference.summary_string
    assert "SCGACL" in capsys.readouterr().out
    reference.to_device("cpu")
    assert reference.device == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_it_goes_between_devices(tmp_path):
    model = fit(synthetic(), train={"accelerator": "gpu", "devices": 1}, batch_key="batch")
    on_gpu = model.get_imputed_expression(return_numpy=True, layer_key=None)
    model.save(tmp_path / "m", save_anndata=True)
    loaded = SCGACL.load(tmp_path / "m", accelerator="cpu")
    assert loaded.device == torch.device("cpu")
    np.testing.assert_allclose(loaded.get_imputed_expression(return_numpy=True), on_gpu, rtol=1e-3, atol=1e-3)
    back = SCGACL.load(tmp_path / "m", accelerator="gpu")
    np.testing.assert_allclose(back.get_imputed_expression(return_numpy=True), on_gpu, rtol=1e-4, atol=1e-4)


def test_mudata_of_scvi_tools_trains():
    from contextlib import nullcontext

    import mudata

    with mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext():
        mdata = scvi.data.synthetic_iid(batch_size=40, n_genes=30, n_regions=0, return_mudata=True)
        SCGACL.setup_mudata(
            mdata,
            batch_key="batch",
            labels_key="labels",
            modalities={"rna_layer": "rna"},
        )
        model = SCGACL(mdata, **SIZES, gene_likelihood="nb")
        model.train(**SHORT)
        assert model.get_imputed_expression().shape == (80, 30)
        assert "scgacl" in mdata.mod["rna"].layers
