"""What every result says of itself, and the forms it comes in."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from tests.conftest import make_counts

from scgacl_scvi import SCGACL, evaluate, pl, scales
from scgacl_scvi.model._fingerprint import data_fingerprint

from .conftest import short_fit

GETTERS = {
    "get_imputed_expression": scales.UNITS["lognorm"],
    "get_dropout_probability": "probability",
    "get_imputed_uncertainty": "standard deviation, in " + scales.UNITS["lognorm"],
    "posterior_predictive_sample": scales.UNITS["counts"],
}
OURS = {name for base in SCGACL.__mro__ if base.__module__.startswith("scgacl_scvi.model") for name in vars(base)}
INHERITED = {
    "get_normalized_expression",
    "get_feature_correlation_matrix",
    "get_likelihood_parameters",
    "get_latent_library_size",
}
# Names, or probabilities that sum to 1; no numbers; always refused.
UNITLESS = {"predict_cluster", "get_anndata_manager", "get_importance_weights"}
UNIT_WORDS = ("scale", "count", "probabilit", "nats", "lognorm", "no unit")


def sparse_counts(**kwargs) -> anndata.AnnData:
    """Low counts, most of them zero."""
    adata = make_counts(**kwargs)
    rng = np.random.default_rng(1)
    x = rng.binomial(adata.X.toarray().astype(int), 0.06).astype(np.float32)
    x[x.sum(1) == 0, 0] = 1
    adata.X = sparse.csr_matrix(x)
    return adata


@pytest.fixture(scope="module")
def sparse_model() -> SCGACL:
    return short_fit(sparse_counts(n_cells=90), gene_likelihood="nb")


def test_every_public_getter_states_its_unit():
    getters = {name for name in OURS if name.startswith(("get_", "posterior_", "predict_", "gene_"))}
    assert getters == {*GETTERS, "gene_report", *INHERITED} | UNITLESS
    for name in getters - UNITLESS:
        returns = getattr(SCGACL, name).__doc__.split("Returns\n")[1].split("Raises\n")[0].lower()
        assert any(word in returns for word in UNIT_WORDS), name


@pytest.mark.parametrize("getter", GETTERS)
def test_every_stored_result_states_its_unit_and_making_in_uns(models, getter):
    model = models["nb"]
    getattr(model, getter)(layer_key="kept")
    record = model.adata.uns["scgacl"]["kept"]
    assert GETTERS[getter] in record["unit"]
    assert record["quantity"]
    assert record["seed"] == 0
    assert record["data_fingerprint"] == data_fingerprint(model.adata_manager)
    assert set(record["versions"]) == {"scgacl-scvi", "scvi-tools", "torch"}
    assert model.adata.layers["kept"].shape == model.adata.shape


def test_the_report_states_the_unit_of_each_column(models):
    for model in models.values():
        report = model.gene_report()
        assert set(report.attrs["units"]) == set(report.columns)


def test_a_fingerprint_names_the_numbers_and_not_how_they_are_stored():
    def of(adata):
        SCGACL.setup_anndata(adata)
        return data_fingerprint(SCGACL(adata, gene_likelihood="nb").adata_manager)

    base = make_counts()
    dense, columns, double = base.copy(), base.copy(), base.copy()
    dense.X, columns.X, double.X = base.X.toarray(), base.X.tocsc(), base.X.astype(np.float64)
    assert len({of(a) for a in (base, dense, columns, double)}) == 1
    changed, renamed = base.copy(), base.copy()
    changed.X[0, 0] += 1
    renamed.var_names = [f"g{name}" for name in base.var_names]
    assert len({of(a) for a in (base, changed, renamed)}) == 3


def test_csr_holds_the_same_values_and_only_what_is_not_zero(sparse_model):
    dense = sparse_model.get_imputed_expression(return_type="numpy", layer_key=None)
    found = sparse_model.get_imputed_expression(return_type="csr", layer_key=None, batch_size=7)
    assert isinstance(found, sparse.csr_matrix)
    assert found.nnz == np.count_nonzero(dense)
    np.testing.assert_allclose(found.toarray(), dense, rtol=1e-5)


def test_csr_is_made_without_a_dense_matrix_of_all_cells(sparse_model, monkeypatch):
    from scgacl_scvi.model import _imputation

    def forbidden(*_):
        raise AssertionError("a dense matrix was made")

    monkeypatch.setattr(_imputation, "dense_of", forbidden)
    sparse_model.get_imputed_expression(return_type="csr")
    assert sparse.issparse(sparse_model.adata.layers["scgacl"])


def test_the_layer_is_csr_where_that_is_smaller(sparse_model, models):
    frame = sparse_model.get_imputed_expression()
    layer = sparse_model.adata.layers["scgacl"]
    assert isinstance(layer, sparse.csr_matrix)
    assert layer.data.nbytes + layer.indices.nbytes + layer.indptr.nbytes < frame.to_numpy().nbytes
    np.testing.assert_array_equal(layer.toarray(), frame.to_numpy())
    models["nb"].get_imputed_expression()
    assert isinstance(models["nb"].adata.layers["scgacl"], np.ndarray)


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_scanpy_and_files_take_a_sparse_layer(sparse_model, tmp_path):
    sparse_model.get_imputed_expression()
    adata = sparse_model.adata.copy()
    adata.obs["type"] = adata.obs["cell_type"].astype("category")
    sc.tl.rank_genes_groups(adata, "type", layer="scgacl", method="wilcoxon")
    adata.obsm["X_umap"] = sparse_model.get_latent_representation()[:, :2]
    for axes in (
        sc.pl.umap(adata, color=adata.var_names[0], layer="scgacl", show=False),
        sc.pl.violin(adata, adata.var_names[0], groupby="type", layer="scgacl", show=False),
        pl.gene_scatter(adata, *adata.var_names[:2], layer="scgacl"),
        pl.dropout_curve(adata),
    ):
        assert axes.collections
        axes.figure.clear()
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for again in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        assert (again.layers["scgacl"] != adata.layers["scgacl"]).nnz == 0
        assert again.uns["scgacl"]["scgacl"]["unit"] == scales.UNITS["lognorm"]


def test_parts_come_as_csr_too(sparse_model):
    genes = list(sparse_model.adata.var_names[[3, 1]])
    part = sparse_model.get_imputed_expression(indices=[5, 2], gene_list=genes, return_type="csr")
    whole = sparse_model.get_imputed_expression(layer_key=None)
    np.testing.assert_allclose(part.toarray(), whole.iloc[[5, 2]][genes], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"return_type": "csr", "policy": "denoise"},
        {"return_type": "csr", "n_samples": 2, "return_mean": False},
        {"return_type": "list"},
        {"return_type": "csr", "return_numpy": True},
    ],
)
def test_a_form_that_does_not_fit_is_refused(sparse_model, wrong):
    with pytest.raises(ValueError, match="return_type"):
        sparse_model.get_imputed_expression(**wrong)


def test_a_layer_on_another_scale_is_warned_of(models):
    model = models["nb"]
    x, y = model.adata.var_names[:2]
    model.get_imputed_expression()
    pl.gene_scatter_before_after(model.adata, x, y)  # lognorm: no warning
    for scale in ("cp10k", "counts"):
        model.get_imputed_expression(policy="denoise", scale=scale, layer_key="other")
        for draw in (
            lambda: pl.gene_scatter_before_after(model.adata, x, y, layer="other"),
            lambda: pl.gene_scatter(model.adata, x, y, layer="other"),
        ):
            with pytest.warns(UserWarning, match=f"`layer` is on the scale '{scale}'"):
                draw()
    truth, counts = model.adata.layers["truth"], model.adata.X
    frame = model.get_imputed_expression(scale="cp10k", layer_key=None)
    with pytest.warns(UserWarning, match="`imputed` is on the scale 'cp10k'"):
        evaluate.recovery(frame, truth, counts)
    evaluate.recovery(model.get_imputed_expression(layer_key=None), truth, counts)


def test_frames_say_how_they_were_made(models):
    frame = models["nb"].get_imputed_expression(scale="cp10k", policy="denoise", layer_key=None)
    assert isinstance(frame, pd.DataFrame)
    assert frame.attrs["scgacl"]["scale"] == "cp10k"
    assert frame.attrs["scgacl"]["unit"] == scales.UNITS["cp10k"]
