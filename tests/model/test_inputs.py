"""Every form that an AnnData comes in gives the same model, and stays as it was."""

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from tests.conftest import make_counts

from scgacl_scvi import SCGACL

from .conftest import short_fit

FORMS = {
    "csr": lambda x: x,
    "csc": lambda x: x.tocsc(),
    "dense": lambda x: x.toarray(),
    "fortran": lambda x: np.asfortranarray(x.toarray()),
    "csr_array": lambda x: sparse.csr_array(x),
    "csc_array": lambda x: sparse.csc_array(x),
}
DTYPES = ("int32", "int64", "uint8", "uint16", "float32", "float64")


def with_x(x, **kwargs) -> AnnData:
    base = make_counts(**kwargs)
    return AnnData(x(base.X), obs=base.obs.copy(), var=base.var.copy())


def values(adata: AnnData, setup: dict | None = None, **model) -> np.ndarray:
    fitted = short_fit(adata, "cell_type", setup, **{"gene_likelihood": "nb", **model})
    return fitted.get_imputed_expression(return_numpy=True, layer_key=None)


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    return {kind: values(make_counts(), gene_likelihood=kind) for kind in ("nb", "zinb", "normal")}


@pytest.mark.parametrize(
    ("kind", "form"), [*(("nb", form) for form in FORMS), ("zinb", "csc"), ("normal", "csc"), ("normal", "csr_array")]
)
def test_any_form_of_the_matrix_gives_the_same_values(expected, form, kind):
    adata = with_x(FORMS[form])
    x, before = adata.X, adata.X.copy()
    # Sums are rounded in another order where the matrix is stored in another one.
    np.testing.assert_allclose(values(adata, gene_likelihood=kind), expected[kind], rtol=1e-4, atol=1e-4)
    assert adata.X is x
    assert type(x) is type(before)
    assert (np.asarray(x - before) == 0).all() if isinstance(x, np.ndarray) else (x - before).count_nonzero() == 0


@pytest.mark.parametrize(
    ("form", "dtype"), [*(("csr", dtype) for dtype in DTYPES), ("dense", "int64"), ("dense", "uint8")]
)
def test_any_type_of_number_gives_the_same_values(expected, dtype, form):
    adata = with_x(lambda x: FORMS[form](x).astype(dtype))
    np.testing.assert_allclose(values(adata), expected["nb"], rtol=1e-4, atol=1e-4)
    assert adata.X.dtype == dtype


@pytest.mark.parametrize("form", ["csr", "dense"])
def test_seen_or_not_seen_is_a_count_too(form):
    adata = with_x(lambda x: FORMS[form](x > 2))
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    assert np.isfinite(values(adata)).all()


def test_large_counts_of_a_small_type_do_not_overflow():
    adata = with_x(lambda x: np.minimum(x.toarray() * 3000, 60_000).astype(np.uint16))
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood="nb")
    assert float(model.module.median_library) == np.median(adata.X.astype(np.int64).sum(1))


def test_counts_in_a_layer_are_those_that_are_used(expected):
    adata = make_counts()
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray() / 3)
    model = short_fit(adata, "cell_type", {"layer": "counts"}, gene_likelihood="nb")
    np.testing.assert_array_equal(model.get_imputed_expression(return_numpy=True), expected["nb"])
    np.testing.assert_array_equal(adata.layers["scgacl"], expected["nb"])


def test_counts_in_raw_are_pointed_at_and_taken_from_there(expected):
    adata = make_counts()
    adata.raw = adata.copy()
    adata.X = np.log1p(adata.X.toarray() / 3)
    with pytest.raises(ValueError, match=r"adata\.raw\.to_adata\(\)"):
        SCGACL.setup_anndata(adata)
    counts = adata.raw.to_adata()
    np.testing.assert_array_equal(values(counts), expected["nb"])


def test_a_view_is_registered_only_as_a_copy():
    adata = make_counts()
    view = adata[:50]
    with pytest.raises(ValueError, match=r"copy\(\)"):
        SCGACL.setup_anndata(view)
    assert view.is_view
    assert values(view.copy()).shape == (50, 30)


def test_getters_take_views_of_cells_in_any_order(expected):
    model = short_fit(make_counts(), "cell_type", gene_likelihood="nb")
    whole = model.get_imputed_expression(layer_key=None)
    rows = np.random.default_rng(0).permutation(60)[:25]
    parent = make_counts()
    for view in (model.adata[rows], parent[rows], parent[parent.obs_names[rows]], parent[rows][::-1][::-1]):
        frame = model.get_imputed_expression(view)
        np.testing.assert_allclose(frame, whole.iloc[rows], rtol=1e-4, atol=1e-5)
        assert list(frame.index) == list(whole.index[rows])
        assert view.layers["scgacl"].shape == (25, 30)
    assert "scgacl" not in model.adata.layers
    assert "scgacl" not in parent.layers


@pytest.mark.parametrize(("form", "mode"), [("csr", "r"), ("csc", "r"), ("dense", "r"), ("csr", "r+")])
def test_backed_data_give_the_same_values(expected, tmp_path, form, mode):
    with_x(FORMS[form]).write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed=mode)
    np.testing.assert_allclose(values(backed), expected["nb"], rtol=1e-4, atol=1e-4)
    assert backed.isbacked
    backed.file.close()
    again = anndata.read_h5ad(tmp_path / "a.h5ad").X
    again = again.toarray() if sparse.issparse(again) else again
    np.testing.assert_array_equal(again, make_counts().X.toarray())


def test_names_of_cells_need_not_be_unique(expected):
    adata = make_counts()
    adata.obs_names = ["cell", "cell", *[f"c{i}" for i in range(58)]]
    model = short_fit(adata, "cell_type", gene_likelihood="nb")
    frame = model.get_imputed_expression()
    np.testing.assert_array_equal(frame, expected["nb"])
    assert list(frame.index[:3]) == ["cell", "cell", "c0"]


LABELS = {
    "object": lambda labels: labels.astype(object),
    "category": lambda labels: pd.Categorical(labels),
    "ordered": lambda labels: pd.Categorical(labels, categories=["C", "B", "A", "none of them"], ordered=True),
    "string": lambda labels: pd.array(labels, dtype="string"),
    "fixed width": lambda labels: pd.Series(labels.astype("U1")).to_numpy(),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("missing", [False, True])
def test_labels_and_batches_of_any_kind_are_the_same(kind, missing):
    labels = make_counts().obs["cell_type"].to_numpy().astype(object)

    def registered(make) -> tuple:
        adata = make_counts()
        column = pd.Series(make(labels), index=adata.obs_names)
        if missing:
            column = column.astype(object) if column.dtype == object else column
            column[:5] = None
        adata.obs["y"], adata.obs["b"] = column, make(labels)
        before = adata.obs[["y", "b"]].copy()
        SCGACL.setup_anndata(adata, labels_key="y", batch_key="b")
        pd.testing.assert_frame_equal(adata.obs[["y", "b"]], before)
        model = SCGACL(adata, gene_likelihood="nb")
        codes = [adata.obs[key].to_numpy().tolist() for key in ("_scvi_labels", "_scvi_batch")]
        return model.label_names_, model.summary_stats.n_batch, codes

    assert registered(LABELS[kind])[0] == ["A", "B", "C"]
    if kind != "ordered":  # its order is that of its codes
        assert registered(LABELS[kind]) == registered(LABELS["object"])


def test_covariates_may_be_nullable_or_boolean():
    adata = make_counts()
    adata.obs["switch"] = np.arange(60) % 2 == 0
    adata.obs["maybe"] = pd.array(np.arange(60) % 3 == 0, dtype="boolean")
    adata.obs["whole"] = pd.array(np.arange(60) % 5, dtype="Int64")
    adata.obs["factor"] = pd.array(adata.obs["size"].to_numpy(), dtype="Float64")
    setup = {
        "batch_key": "switch",
        "size_factor_key": "factor",
        "categorical_covariate_keys": ["maybe"],
        "continuous_covariate_keys": ["whole", "score"],
    }
    assert np.isfinite(values(adata, setup)).all()


def test_missing_nullable_values_are_refused_by_name():
    adata = make_counts()
    adata.obs["whole"] = pd.array([None, *range(59)], dtype="Int64")
    with pytest.raises(ValueError, match="continuous_covariate_keys.*'whole'.*missing"):
        SCGACL.setup_anndata(adata, continuous_covariate_keys=["whole"])
    adata.obs["maybe"] = pd.array([None, *[True] * 59], dtype="boolean")
    with pytest.raises(ValueError, match="batch_key='maybe'"):
        SCGACL.setup_anndata(adata, batch_key="maybe")


def test_files_read_back_are_taken_as_they_are(expected, tmp_path):
    adata = make_counts()
    adata.obs["cell_type"] = pd.Categorical(adata.obs["cell_type"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Writing zarr v2")
        adata.write_zarr(tmp_path / "a.zarr")
    for read in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(values(read), expected["nb"])
