"""A MuData is registered by the modality of its expression, and results go there."""

from contextlib import nullcontext

import mudata
import numpy as np
import pytest
import scvi
from mudata import MuData
from tests.conftest import make_counts

from scgacl_scvi import SCGACL, settings
from scgacl_scvi._keys import named_layers

from .conftest import SHORT

SIZES = {"n_latent": 4, "n_hidden": 16, "n_hidden_discriminator": 16, "gene_likelihood": "nb"}
IN_RNA = {"rna_layer": "rna", "labels_key": "rna", "batch_key": "rna"}


def as_mudata_04():
    """mudata 0.3 warns of the default that 0.4 has."""
    return mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext()


@pytest.fixture(autouse=True)
def _as_mudata_04():
    with as_mudata_04():
        yield


def make_mudata() -> MuData:
    """Proteins first, so that genes are not the first names of the whole."""
    protein = make_counts(n_genes=7, seed=3)
    protein.var_names = [f"protein{i}" for i in range(7)]
    return MuData({"protein": protein, "rna": make_counts()})


def fit(mdata: MuData, modalities: dict, **setup) -> SCGACL:
    SCGACL.setup_mudata(mdata, modalities=modalities, **setup)
    model = SCGACL(mdata, **SIZES)
    model.train(**SHORT)
    return model


@pytest.fixture(scope="module")
def model() -> SCGACL:
    before, settings._seed = scvi.settings._seed, 0
    with as_mudata_04():
        fitted = fit(make_mudata(), IN_RNA, labels_key="cell_type", batch_key="batch")
    settings._seed = before
    return fitted


def test_the_result_goes_into_the_modality_and_is_that_of_the_modality_alone(model):
    frame = model.get_imputed_expression()
    rna, protein = model.adata.mod["rna"], model.adata.mod["protein"]
    assert list(frame.columns) == list(rna.var_names)
    np.testing.assert_array_equal(np.asarray(rna.layers["scgacl"]), frame.to_numpy())
    assert rna.uns["scgacl"]["scgacl"]["scale"] == "lognorm"
    assert named_layers(protein) == ["truth"]
    assert "scgacl" not in protein.uns
    alone = make_counts()
    SCGACL.setup_anndata(alone, labels_key="cell_type", batch_key="batch")
    reference = SCGACL(alone, **SIZES)
    reference.train(**SHORT)
    np.testing.assert_array_equal(reference.get_imputed_expression(), frame)


def test_every_getter_names_the_genes_of_the_modality(model):
    genes = list(model.adata.mod["rna"].var_names)
    model.adata.obs["cell_type"] = model.adata.mod["rna"].obs["cell_type"].to_numpy()
    for columns in (
        model.get_imputed_uncertainty(n_samples=2).columns,
        model.get_dropout_probability(return_type="frame").columns,
        model.get_normalized_expression().columns,
        model.get_feature_correlation_matrix(n_samples=1).columns,
        model.gene_report().index,
        model.gene_report(groupby="cell_type").loc["A"].index,
    ):
        assert list(columns) == genes
    tested = model.differential_expression(groupby="cell_type", group1="A", group2="B", silent=True)
    assert sorted(tested.index) == sorted(genes)
    two = [genes[5], genes[2]]
    assert list(model.get_imputed_expression(gene_list=two).columns) == two
    assert sorted(model.get_normalized_expression(gene_list=two).columns) == sorted(two)


def test_groups_of_a_test_are_looked_up_in_the_whole(model):
    with pytest.raises(KeyError, match="groupby='nokey'"):
        model.differential_expression(groupby="nokey")


def test_it_is_saved_with_its_data_and_loaded(model, tmp_path):
    before = model.get_imputed_expression(layer_key=None)
    model.save(tmp_path / "m", save_anndata=True)
    loaded = SCGACL.load(tmp_path / "m")
    assert isinstance(loaded.adata, MuData)
    np.testing.assert_array_equal(loaded.get_imputed_expression(), before)
    assert "scgacl" in loaded.adata.mod["rna"].layers


def test_other_cells_come_as_a_mudata_too(model):
    other = make_mudata()
    np.testing.assert_array_equal(model.get_imputed_expression(other), model.get_imputed_expression(layer_key=None))
    assert "scgacl" in other.mod["rna"].layers
    with pytest.raises(ValueError, match="registered with a MuData"):
        model.get_imputed_expression(make_counts())


def test_the_registered_modality_stands_for_the_whole(model):
    whole = model.get_imputed_expression(layer_key=None)
    np.testing.assert_array_equal(model.get_imputed_expression(model.adata.mod["rna"], layer_key=None), whole)


def test_keys_may_be_in_the_whole_or_in_another_modality():
    mdata = make_mudata()
    mdata.obs["donor"] = mdata.mod["rna"].obs["batch"].to_numpy()
    mdata.mod["protein"].obs["kind"] = mdata.mod["rna"].obs["cell_type"].to_numpy()
    mdata.mod["rna"].layers["counts"] = mdata.mod["rna"].X.copy()
    mdata.mod["rna"].X = np.log1p(mdata.mod["rna"].X.toarray() / 3)
    model = fit(
        mdata,
        {
            "rna_layer": "rna",
            "labels_key": "protein",
            "size_factor_key": "rna",
            "categorical_covariate_keys": "protein",
            "continuous_covariate_keys": "rna",
        },
        rna_layer="counts",
        labels_key="kind",
        batch_key="donor",
        size_factor_key="size",
        categorical_covariate_keys=["kind"],
        continuous_covariate_keys=["score"],
    )
    assert model.label_names_ == ["A", "B", "C"]
    assert model.summary_stats.n_batch == 2
    assert np.isfinite(model.get_imputed_expression(return_numpy=True)).all()


@pytest.mark.parametrize("modalities", [None, {}, {"labels_key": "rna"}])
def test_the_modality_of_the_expression_has_to_be_named(modalities):
    with pytest.raises(ValueError, match=r"modalities.*'protein', 'rna'"):
        SCGACL.setup_mudata(make_mudata(), modalities=modalities)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"modalities": {"rna_layer": "atac"}}, KeyError, "'atac'.*'protein', 'rna'"),
        ({"modalities": {"rna_layer": "rna", "nokey": "rna"}}, ValueError, "nokey"),
        ({"modalities": {"rna_layer": "rna"}, "batch_key": "batch"}, KeyError, "batch_key='batch'.*`mdata.obs`"),
        ({"modalities": IN_RNA, "labels_key": "nokey"}, KeyError, r"labels_key='nokey'.*mdata.mod\['rna'\].obs"),
        ({"modalities": IN_RNA, "rna_layer": "nokey"}, KeyError, r"rna_layer='nokey'.*mdata.mod\['rna'\].layers"),
        ({"modalities": IN_RNA, "categorical_covariate_keys": "batch"}, TypeError, "give a list"),
        ({"modalities": IN_RNA, "input_scale": "log"}, ValueError, "input_scale='log'"),
    ],
)
def test_what_is_not_there_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        SCGACL.setup_mudata(make_mudata(), **arguments)


def test_a_matrix_that_is_no_counts_is_named_by_its_modality():
    mdata = make_mudata()
    mdata.mod["rna"].X = np.log1p(mdata.mod["rna"].X.toarray() / 3)
    with pytest.raises(ValueError, match=r"`mdata.mod\['rna'\].X` is not whole numbers"):
        SCGACL.setup_mudata(mdata, modalities={"rna_layer": "rna"})


def test_modalities_of_other_cells_are_refused_with_the_remedy():
    fewer = MuData({"rna": make_counts()[:40].copy(), "protein": make_mudata().mod["protein"]})
    with pytest.raises(ValueError, match=r"lacks 20 of 60 cells.*intersect_obs.*setup_anndata"):
        SCGACL.setup_mudata(fewer, modalities={"rna_layer": "rna"})


def test_the_two_kinds_of_data_are_not_mixed_up(models):
    with pytest.raises(TypeError, match="setup_anndata"):
        SCGACL.setup_mudata(make_counts(), modalities={"rna_layer": "rna"})
    with pytest.raises(ValueError, match="registered with an AnnData"):
        models["nb"].get_imputed_expression(make_mudata())
    with pytest.raises(TypeError, match="AnnData"):
        SCGACL.setup_anndata(make_mudata())
