"""Bad input gets an error that names the argument and the remedy, before any training."""

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from tests.conftest import make_counts

from scgacl_scvi import SCGACL


def _with(entry=None, **changes) -> AnnData:
    adata = make_counts()
    x = adata.X.toarray()
    if entry is not None:
        x[0, 0] = entry
    adata.X = changes.get("x", x)
    return adata


@pytest.mark.parametrize("sparse_x", [False, True])
@pytest.mark.parametrize(
    ("entry", "message"),
    [(np.nan, "NaN"), (np.inf, "NaN or infinite"), (-1.0, "negative.*layer='counts'"), (0.5, "fractional='round'")],
)
def test_matrices_that_are_not_counts_are_refused(entry, message, sparse_x):
    adata = _with(entry)
    if sparse_x:
        adata.X = sparse.csr_matrix(adata.X)
    with pytest.raises(ValueError, match=message):
        SCGACL.setup_anndata(adata)


def test_normalised_input_is_refused_with_the_remedy():
    adata = make_counts()
    adata.X = np.log1p(adata.X.toarray() / 3)
    with pytest.raises(ValueError, match="log-transformed.*input_scale='lognorm'"):
        SCGACL.setup_anndata(adata)


def test_text_is_refused():
    adata = AnnData(obs=make_counts().obs, var=make_counts().var)
    adata.layers["text"] = np.full((60, 30), "a", dtype=object)
    with pytest.raises(TypeError, match="not numbers"):
        SCGACL.setup_anndata(adata, layer="text")


def test_a_cell_without_counts_is_refused():
    x = make_counts().X.toarray()
    x[[4, 9]] = 0
    with pytest.raises(ValueError, match=r"2 cell\(s\).*number 4.*filter_cells"):
        SCGACL.setup_anndata(_with(x=x))


def test_a_cell_that_rounds_to_nothing_is_refused():
    x = make_counts().X.toarray()
    x[3] = 0.2
    with pytest.raises(ValueError, match="no counts"):
        SCGACL.setup_anndata(_with(x=x), fractional="round")


def test_only_zeros_or_no_matrix_are_refused():
    with pytest.raises(ValueError, match="only zeros"):
        SCGACL.setup_anndata(AnnData(np.zeros((4, 3), dtype=np.float32)))
    with pytest.raises(ValueError, match="empty"):
        SCGACL.setup_anndata(AnnData(obs=make_counts().obs, var=make_counts().var))


@pytest.mark.parametrize(("rows", "columns", "what"), [(1, 30, "cell"), (60, 1, "gene")])
def test_one_cell_or_one_gene_is_refused(rows, columns, what):
    with pytest.raises(ValueError, match=f"1 {what}"):
        SCGACL.setup_anndata(make_counts()[:rows, :columns].copy())


def test_duplicate_gene_names_are_refused():
    adata = make_counts()
    adata.var_names = ["a", "a", *[f"g{i}" for i in range(28)]]
    with pytest.raises(ValueError, match="var_names_make_unique"):
        SCGACL.setup_anndata(adata)


@pytest.mark.parametrize(
    "argument", ["labels_key", "batch_key", "size_factor_key", "layer", "categorical_covariate_keys"]
)
def test_an_unknown_key_is_named(adata, argument):
    value = ["nokey"] if argument.endswith("keys") else "nokey"
    with pytest.raises(KeyError, match=f"{argument}='nokey'"):
        SCGACL.setup_anndata(adata, **{argument: value})


def test_a_missing_batch_is_refused(adata):
    adata.obs["batch"] = adata.obs["batch"].astype(object)
    adata.obs.loc[adata.obs_names[0], "batch"] = None
    with pytest.raises(ValueError, match=r"batch_key='batch'.*1 cell"):
        SCGACL.setup_anndata(adata, batch_key="batch")


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_size_factors_must_be_positive_numbers(adata, value):
    adata.obs.loc[adata.obs_names[0], "size"] = value
    with pytest.raises(ValueError, match="size_factor_key"):
        SCGACL.setup_anndata(adata, size_factor_key="size")


def test_a_text_covariate_is_refused_as_continuous(adata):
    with pytest.raises(ValueError, match="continuous_covariate_keys"):
        SCGACL.setup_anndata(adata, continuous_covariate_keys=["batch"])


@pytest.mark.parametrize(("argument", "value"), [("input_scale", "log"), ("fractional", "floor")])
def test_an_unknown_choice_lists_the_choices(adata, argument, value):
    with pytest.raises(ValueError, match=f"{argument}='{value}'.*choose one of"):
        SCGACL.setup_anndata(adata, **{argument: value})


def test_rounding_is_for_counts_only(adata):
    with pytest.raises(ValueError, match="fractional='round'"):
        SCGACL.setup_anndata(adata, input_scale="lognorm", fractional="round")


def test_covariates_are_a_list(adata):
    with pytest.raises(TypeError, match="categorical_covariate_keys"):
        SCGACL.setup_anndata(adata, categorical_covariate_keys="batch")


def test_something_else_than_anndata_is_refused():
    with pytest.raises(TypeError, match="AnnData"):
        SCGACL.setup_anndata(np.ones((5, 4)))


@pytest.mark.parametrize("form", ["csr", "csc", "dense", "int"])
def test_registering_changes_nothing_of_the_users(form):
    adata = make_counts()
    adata.X = {
        "csr": adata.X,
        "csc": adata.X.tocsc(),
        "dense": adata.X.toarray(),
        "int": adata.X.toarray().astype(int),
    }[form]
    x, before = adata.X, adata.copy()
    SCGACL.setup_anndata(adata, labels_key="cell_type", batch_key="batch")
    assert adata.X is x
    assert [c for c in adata.obs if not c.startswith("_scvi")] == list(before.obs)
    assert (adata.obs[before.obs.columns] == before.obs).all(None)
    assert [key for key in adata.uns if not key.startswith("_scvi")] == []


def test_missing_labels_are_unlabelled_and_stay_missing_for_the_user(adata):
    labels = adata.obs["cell_type"].astype(object).copy()
    labels.iloc[:10] = np.nan
    adata.obs["cell_type"] = labels
    SCGACL.setup_anndata(adata, labels_key="cell_type")
    model = SCGACL(adata, gene_likelihood="nb")
    assert model.module.n_labels == 3
    assert model.label_names_ == ["A", "B", "C"]
    assert (adata.obs["_scvi_labels"].to_numpy()[:10] == 3).all()
    assert adata.obs["cell_type"].isna().sum() == 10


@pytest.mark.parametrize("kind", ["int", "bool", "category", "string"])
def test_labels_of_any_kind_register(adata, kind):
    codes = np.arange(adata.n_obs) % 2
    adata.obs["y"] = {
        "int": codes,
        "bool": codes.astype(bool),
        "category": np.where(codes, "x", "Unknown"),
        "string": np.where(codes, "x", "y"),
    }[kind]
    if kind == "category":
        adata.obs["y"] = adata.obs["y"].astype("category")
    SCGACL.setup_anndata(adata, labels_key="y")
    assert SCGACL(adata, gene_likelihood="nb").module.n_labels == (1 if kind == "category" else 2)


def test_all_unlabelled_is_as_without_labels(adata):
    adata.obs["y"] = "Unknown"
    SCGACL.setup_anndata(adata, labels_key="y")
    assert SCGACL(adata, gene_likelihood="nb").module.n_labels == 0


def test_arguments_that_contradict_the_data_are_refused(adata):
    SCGACL.setup_anndata(adata, labels_key="cell_type")
    with pytest.raises(ValueError, match="n_clusters=2.*3 labels"):
        SCGACL(adata, n_clusters=2)
    with pytest.raises(ValueError, match="normal"):
        SCGACL(adata, preset="paper", gene_likelihood="nb")
    with pytest.raises(ValueError, match="preset"):
        SCGACL(adata, preset="published")
    for wrong in ({"n_latent": 1}, {"n_latent": 2.5}, {"hide_rate": 1.5}, {"dropout_rate": -0.1}, {"n_clusters": 99}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SCGACL(adata, **wrong)
    SCGACL.setup_anndata(adata)
    with pytest.raises(ValueError, match="needs labels"):
        SCGACL(adata, preset="paper")
