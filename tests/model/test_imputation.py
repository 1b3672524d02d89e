import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
import torch
from tests.conftest import make_counts

from scgacl_scvi import SCGACL
from scgacl_scvi._keys import named_layers

SHORT = {"pretrain_epochs": 2, "vade_epochs": 2, "joint_epochs": 2, "enable_progress_bar": False}


def fit(adata, labels_key=None, model=None, setup=None, **train) -> SCGACL:
    SCGACL.setup_anndata(adata, labels_key=labels_key, **(setup or {}))
    trained = SCGACL(adata, **{"n_latent": 4, "n_hidden": 16, "n_hidden_discriminator": 16, **(model or {})})
    trained.train(**{**SHORT, **train})
    return trained


@pytest.fixture(scope="module", params=["nb", "zinb", "normal", "paper"])
def trained(request) -> SCGACL:
    scvi.settings._seed = 0
    adata = make_counts(dropout=0.4 if request.param == "zinb" else 0.1)
    kind = {"preset": "paper"} if request.param == "paper" else {"gene_likelihood": request.param}
    return fit(adata, "cell_type", kind)


def test_observed_entries_are_kept_and_zeros_are_filled_or_zero(trained):
    adata = trained.adata
    counts = adata.X.toarray()
    library = counts.sum(1, keepdims=True)
    lognorm = np.log1p(counts / library * np.median(library))
    imputed = trained.get_imputed_expression(return_numpy=True)
    np.testing.assert_allclose(imputed[counts > 0], lognorm[counts > 0], rtol=1e-5)
    assert (imputed >= 0).all()
    assert np.isfinite(imputed).all()


def test_scales_are_those_of_one_expression(trained):
    def get(scale, policy="impute"):
        return trained.get_imputed_expression(policy=policy, scale=scale, return_numpy=True, layer_key=None)

    median = float(trained.module.median_library)
    library = np.asarray(trained.adata.X.sum(1))
    for policy in ("impute", "denoise"):
        reference = np.expm1(get("lognorm", policy))
        np.testing.assert_allclose(get("cp10k", policy), reference / median * 1e4, rtol=2e-4, atol=1e-3)
        np.testing.assert_allclose(get("log1p_cp10k", policy), np.log1p(reference / median * 1e4), rtol=2e-4, atol=1e-4)
    observed = trained.adata.X.toarray()
    np.testing.assert_array_equal(get("counts")[observed > 0], observed[observed > 0])
    if trained.module.gene_likelihood == "normal":
        np.testing.assert_allclose(
            get("counts", "denoise"), np.expm1(get("lognorm", "denoise")) * library / median, rtol=1e-3, atol=1e-4
        )


def test_default_call_stores_one_buffer_and_says_how(trained):
    adata = trained.adata
    frame = trained.get_imputed_expression()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.index) == list(adata.obs_names)
    assert list(frame.columns) == list(adata.var_names)
    assert np.shares_memory(frame.to_numpy(), adata.layers["scgacl"])
    record = adata.uns["scgacl"]["scgacl"]
    assert record["scale"] == "lognorm"
    assert record["policy"] == "impute"
    assert record["seed"] == 0
    assert set(record["versions"]) == {"scgacl-scvi", "scvi-tools", "torch"}


def test_values_depend_neither_on_batch_size_nor_on_the_cells_asked_for(trained):
    whole = trained.get_imputed_expression(return_numpy=True, layer_key=None)
    few = trained.get_imputed_expression(indices=[7, 3, 50], batch_size=2, return_numpy=True)
    np.testing.assert_allclose(few, whole[[7, 3, 50]], rtol=1e-4, atol=1e-5)
    mask = np.arange(60) % 3 == 0
    np.testing.assert_allclose(trained.get_imputed_expression(indices=mask, return_numpy=True), whole[mask], rtol=1e-4)


def test_two_calls_agree_bit_for_bit(trained):
    a, b = (trained.get_imputed_expression(return_numpy=True, layer_key=None) for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_genes_can_be_chosen_and_unknown_ones_raise(trained):
    whole = trained.get_imputed_expression(layer_key=None)
    genes = [whole.columns[5], whole.columns[2]]
    pd.testing.assert_frame_equal(trained.get_imputed_expression(gene_list=genes), whole[genes])
    with pytest.raises(KeyError, match="nogene"):
        trained.get_imputed_expression(gene_list=["nogene"])


def test_samples_come_in_an_array_and_average_to_the_mean(trained):
    kwargs = {"n_samples": 5, "policy": "denoise", "layer_key": None}
    draws = trained.get_imputed_expression(return_mean=False, **kwargs)
    assert draws.shape == (5, 60, 30)
    assert draws.std(0).max() > 0
    np.testing.assert_allclose(trained.get_imputed_expression(return_numpy=True, **kwargs), draws.mean(0), rtol=1e-4)


def test_saved_and_loaded_gives_the_same_bits(trained, tmp_path):
    before = trained.get_imputed_expression(return_numpy=True, layer_key=None)
    trained.save(tmp_path / "model", save_anndata=True)
    own = SCGACL.load(tmp_path / "model")
    given = SCGACL.load(tmp_path / "model", adata=trained.adata.copy())
    for loaded in (own, given):
        np.testing.assert_array_equal(before, loaded.get_imputed_expression(return_numpy=True, layer_key=None))
        assert loaded.module.gene_likelihood == trained.module.gene_likelihood
        assert loaded.history.keys() == trained.history.keys()


def test_clusters_are_named_after_their_labels(trained):
    soft = trained.predict_cluster(soft=True)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-4)
    hard = trained.predict_cluster()
    assert list(soft.columns[:3]) == ["A", "B", "C"]
    np.testing.assert_array_equal(hard, soft.columns[soft.to_numpy().argmax(1)])


def test_scvi_getters_work(trained):
    assert trained.get_latent_representation().shape == (60, 4)
    assert np.isfinite(float(trained.get_elbo()))
    assert np.isfinite(trained.get_marginal_ll(n_mc_samples=3))
    assert np.isfinite(float(trained.get_reconstruction_error()["reconstruction_loss"]))


@pytest.mark.parametrize("scale", ["lognorm", "log1p_cp10k"])
def test_mean_of_the_log_is_at_most_the_log_of_the_mean(trained, scale):
    kwargs = {"policy": "denoise", "scale": scale, "return_numpy": True, "layer_key": None}
    if trained.module.gene_likelihood == "normal":
        with pytest.raises(ValueError, match="estimand='log'"):
            trained.get_imputed_expression(estimand="log", **kwargs)
        return
    log, mean = (trained.get_imputed_expression(estimand=e, **kwargs) for e in ("log", "mean"))
    assert (log <= mean + 1e-3).all()
    assert (log < mean - 1e-3).mean() > 0.2


def test_the_log_of_a_new_count_depends_on_how_deep_one_counts(trained):
    kwargs = {"policy": "denoise", "estimand": "log", "return_numpy": True, "layer_key": "deep"}
    if trained.module.gene_likelihood != "nb":
        with pytest.raises(ValueError, match="gene_likelihood='nb'|count likelihood"):
            trained.get_imputed_expression(depth=1.0, **kwargs)
        return
    shallow, own, deep, expression = (
        trained.get_imputed_expression(depth=depth, **kwargs) for depth in (0.1, 1.0, 1e4, None)
    )
    assert (shallow < own).all()
    assert (own < deep).all()
    # That is at the reference depth, which for a shallow cell's count above 0 is another evidence.
    assert np.isclose(deep, expression, rtol=0.3, atol=0.05).mean() > 0.97
    assert "depth" not in trained.adata.uns["scgacl"]["deep"]  # the last call gave none
    for wrong, said in ({"depth": 0.0}, "above 0"), ({"depth": 1.0, "estimand": "mean"}, "estimand='log'"):
        with pytest.raises(ValueError, match=said):
            trained.get_imputed_expression(**{**kwargs, **wrong})


@pytest.mark.filterwarnings("ignore:Writing zarr v2")  # anndata's choice of format, not ours
def test_scanpy_and_files_take_the_result(trained, tmp_path):
    trained.get_imputed_expression()
    adata = trained.adata.copy()
    adata.obs["type"] = adata.obs["cell_type"].astype("category")
    sc.tl.rank_genes_groups(adata, "type", layer="scgacl", method="wilcoxon")
    adata.obsm["X_umap"] = trained.get_latent_representation()[:, :2]
    axes = sc.pl.umap(adata, color=adata.var_names[0], layer="scgacl", show=False)
    assert axes.collections
    axes.figure.clear()
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for again in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(np.asarray(again.layers["scgacl"]), adata.layers["scgacl"])
        assert again.uns["scgacl"]["scgacl"]["scale"] == "lognorm"


def test_other_calls_store_only_under_a_given_name():
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    adata = model.adata
    model.get_imputed_expression(policy="denoise")
    model.get_imputed_expression(scale="cp10k")
    model.get_imputed_expression(indices=[0, 1])
    model.get_imputed_expression(layer_key=None)
    assert named_layers(adata) == ["truth"]
    assert "scgacl" not in adata.uns
    model.get_imputed_expression(policy="denoise", layer_key="denoised")
    assert adata.uns["scgacl"]["denoised"]["policy"] == "denoise"
    model.get_imputed_expression()
    assert named_layers(adata) == ["denoised", "scgacl", "truth"]
    assert set(adata.uns["scgacl"]) == {"denoised", "scgacl"}
    with pytest.raises(ValueError, match="layer_key"):
        model.get_imputed_expression(indices=[0], layer_key="some")
    with pytest.raises(ValueError, match="layer_key"):
        model.get_imputed_expression(n_samples=2, return_mean=False, layer_key="some")


def test_nothing_of_the_users_changes_but_the_layer():
    adata = make_counts()
    adata.raw = adata
    before = adata.copy()
    fit(adata, "cell_type", {"gene_likelihood": "nb"}).get_imputed_expression()
    assert (adata.X != before.X).nnz == 0
    assert (adata.raw.X != before.raw.X).nnz == 0
    assert (adata.layers["truth"] != before.layers["truth"]).nnz == 0
    pd.testing.assert_frame_equal(adata.obs[before.obs.columns], before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)
    added = {key for key in (*adata.obs, *adata.uns) if key not in (*before.obs, *before.uns)}
    assert all(key.startswith("_scvi") or key == "scgacl" for key in added)


def test_other_data_get_their_own_layer_without_training():
    model = fit(make_counts(), "cell_type", {"gene_likelihood": "nb"})
    other = make_counts(seed=5)
    del other.obs["cell_type"]
    model.get_imputed_expression(other)
    assert other.layers["scgacl"].shape == (60, 30)
    assert "scgacl" not in model.adata.layers


def test_other_data_with_other_genes_or_another_order_are_refused():
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    for other in (make_counts()[:, ::-1].copy(), make_counts(n_genes=29)):
        with pytest.raises(ValueError, match="prepare_query_anndata"):
            model.get_imputed_expression(other)


@pytest.mark.parametrize("kind", ["normal", "paper"])
def test_backed_data_train_with_the_published_rule(kind, tmp_path):
    make_counts().write_h5ad(tmp_path / "a.h5ad")
    adata = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    model = fit(adata, "cell_type", {"preset": "paper"} if kind == "paper" else {"gene_likelihood": kind})
    assert model.get_imputed_expression(layer_key=None).shape == (60, 30)
    adata.file.close()


def test_very_deep_cells_with_dropout_are_filled_at_their_depth():
    adata = make_counts(120, dropout=0.5)
    adata.X = adata.X * 50_000
    model = fit(adata, model={"gene_likelihood": "zinb"}, pretrain_epochs=10, batch_size=16)
    assert float(model.module.max_log_mean) > np.log(adata.X.max())


def test_a_dataloader_takes_another_batch_too():
    model = fit(make_counts(), model={"gene_likelihood": "nb"}, setup={"batch_key": "batch"})
    kwargs = {"policy": "denoise", "transform_batch": "one", "return_numpy": True}
    given = model.get_imputed_expression(dataloader=model._make_data_loader(model.adata), **kwargs)
    np.testing.assert_allclose(given, model.get_imputed_expression(**kwargs), rtol=1e-5)


def test_impute_refuses_another_batch_and_denoise_takes_it():
    model = fit(make_counts(), model={"gene_likelihood": "nb"}, setup={"batch_key": "batch"})
    with pytest.raises(ValueError, match="transform_batch"):
        model.get_imputed_expression(transform_batch="one")
    kwargs = {"policy": "denoise", "return_numpy": True}
    own = model.get_imputed_expression(**kwargs)
    one, two = (model.get_imputed_expression(transform_batch=b, **kwargs) for b in ("one", "two"))
    both = model.get_imputed_expression(transform_batch=["one", "two"], **kwargs)
    is_one = (model.adata.obs["batch"] == "one").to_numpy()
    np.testing.assert_allclose(own[is_one], one[is_one], rtol=1e-4)
    assert not np.allclose(one, two)
    np.testing.assert_allclose(np.expm1(both), (np.expm1(one) + np.expm1(two)) / 2, rtol=1e-3)
    with pytest.raises(ValueError, match="three"):
        model.get_imputed_expression(transform_batch="three", **kwargs)


def test_covariates_and_size_factors_enter():
    setup = {
        "batch_key": "batch",
        "size_factor_key": "size",
        "categorical_covariate_keys": ["cell_type"],
        "continuous_covariate_keys": ["score"],
    }
    model = fit(make_counts(), model={"gene_likelihood": "nb"}, setup=setup)
    assert np.isfinite(model.get_imputed_expression(return_numpy=True, n_samples=3)).all()
    assert model.get_normalized_expression(n_samples=2, return_numpy=True).shape == (60, 30)
    with pytest.raises(ValueError, match="use_posterior_mean"):
        model.get_imputed_expression(n_samples=3, use_posterior_mean=True)


def test_lognorm_input_keeps_its_values_and_has_no_counts():
    adata = make_counts(dropout=0.3)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    model = fit(adata, setup={"input_scale": "lognorm"})
    assert model.module.gene_likelihood == "normal"
    values = model.get_imputed_expression(return_numpy=True)
    observed = adata.X.toarray()
    np.testing.assert_array_equal(values[observed > 0], observed[observed > 0])
    with pytest.raises(ValueError, match="counts are not known"):
        model.get_imputed_expression(scale="counts")
    with pytest.raises(ValueError, match="normal"):
        SCGACL(adata, gene_likelihood="nb")


def test_a_gene_without_counts_stays_zero():
    adata = make_counts()
    x = adata.X.toarray()
    x[:, 4] = 0
    adata.X = x
    for likelihood in ("nb", "zinb", "normal"):
        values = fit(adata, model={"gene_likelihood": likelihood}).get_imputed_expression(return_numpy=True)
        assert (values[:, 4] == 0).all(), likelihood


def test_an_untrained_model_raises(adata):
    SCGACL.setup_anndata(adata)
    with pytest.raises(RuntimeError):
        SCGACL(adata, gene_likelihood="nb").get_imputed_expression()


@pytest.mark.parametrize(
    "wrong",
    [{"policy": "fill"}, {"scale": "tpm"}, {"threshold": 2}, {"n_samples": 0}, {"estimand": "log", "scale": "cp10k"}],
)
def test_arguments_out_of_range_raise(wrong):
    model = fit(make_counts(), model={"gene_likelihood": "nb"})
    with pytest.raises(ValueError, match=next(iter(wrong))):
        model.get_imputed_expression(**wrong)


def test_a_threshold_of_one_fills_nothing_and_of_zero_everything():
    model = fit(make_counts(dropout=0.4), model={"gene_likelihood": "zinb"})
    zero = model.adata.X.toarray() == 0
    none = model.get_imputed_expression(threshold=1.0, return_numpy=True)
    every = model.get_imputed_expression(threshold=0.0, return_numpy=True)
    assert (none[zero] == 0).all()
    assert (every[zero] > 0).all()


def test_no_warning_is_raised_from_counts_to_layer(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(make_counts(), "cell_type", {"gene_likelihood": "nb"})
        model.get_imputed_expression()
        model.save(tmp_path / "m")
        SCGACL.load(tmp_path / "m", adata=model.adata)


def test_importing_the_package_imports_neither_torch_nor_scvi():
    import subprocess
    import sys

    code = "import scgacl_scvi, sys; print([m for m in ('torch', 'scvi', 'scanpy', 'anndata') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_users_random_state_is_left_alone():
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    fit(make_counts(), model={"gene_likelihood": "nb"}).get_imputed_expression(n_samples=2, layer_key=None)
    torch.testing.assert_close(torch.rand(3), expected)
