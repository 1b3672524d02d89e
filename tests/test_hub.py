"""Models go through scvi-tools' hub, as a folder."""

import json

import numpy as np
import pandas as pd
import pytest

from scgacl_scvi import SCGACL, hub
from tests.conftest import make_counts
from tests.model.conftest import short_fit

pytest.importorskip("huggingface_hub", reason="the hub needs huggingface_hub")

LICENCE = "cc-by-4.0"


@pytest.fixture(scope="module")
def model() -> SCGACL:
    adata = make_counts()
    adata.obs_names = [f"patient{i}" for i in range(60)]
    return short_fit(adata, "cell_type", {"batch_key": "batch"}, gene_likelihood="nb")


def test_a_model_goes_through_a_folder_with_its_data(model, tmp_path):
    from scvi.hub import HubModel

    values = model.get_imputed_expression(layer_key=None)
    hub.export(model, tmp_path / "m", license_info=LICENCE, save_anndata=True)
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        "README.md",
        "_scvi_required_metadata.json",
        "adata.h5ad",
        "model.pt",
    }
    again = HubModel(str(tmp_path / "m"))
    assert isinstance(again.model, SCGACL)
    np.testing.assert_array_equal(again.model.get_imputed_expression(), values)
    assert again.metadata.model_cls_name == "SCGACL"


def test_without_its_data_it_takes_those_of_the_user(model, tmp_path):
    from scvi.hub import HubModel

    hub.export(model, tmp_path / "m", license_info=LICENCE)
    assert not (tmp_path / "m" / "adata.h5ad").exists()
    again = HubModel(str(tmp_path / "m"))
    again.load_model(adata=make_counts())
    np.testing.assert_array_equal(again.model.get_imputed_expression(), model.get_imputed_expression(layer_key=None))


def test_the_card_says_how_good_the_model_is_and_on_what(model):
    tables = {"Molecular cross-validation": pd.DataFrame({"gain": [0.25]}, index=pd.Index(["scgacl"], name="method"))}
    card = hub.model_card(
        model, license_info=LICENCE, description="Made-up cells.", evaluation=tables, tissues=["pancreas"]
    )
    report, text = model.gene_report(), card.text
    better = int((report["gain"].dropna() > 0).sum())
    for said in (
        "60 cells x 30 genes",
        "Made-up cells.",
        f"| genes that are predicted better than by their mean | {better} of {report['gain'].notna().sum()} |",
        f"| {report['gain'].median():.3f} |",
        "validation cells, not trained on",
        "### Molecular cross-validation",
        "| method | gain |",
        "| scgacl | 0.250 |",
        '"batch_key": "batch"',
        '"gene_likelihood": "nb"',
        model.data_fingerprint_,
    ):
        assert said in text, said
    assert card.data.license == LICENCE
    assert {"model_cls_name:SCGACL", "tissue:pancreas", "annotated:True", "modality:rna"} <= set(card.data.tags)
    assert not any(name in text for name in model.adata.obs_names)


def test_the_card_says_where_figures_flatter():
    model = short_fit(make_counts(), "cell_type", preset="paper")
    text = hub.model_card(model, license_info=LICENCE).text
    assert "training cells, which flatters" in text
    assert "| preset | paper |" in text


def test_metadata_are_written_and_read(model, tmp_path):
    metadata = hub.metadata(model)
    metadata.save(str(tmp_path / "metadata.json"))
    read = json.loads((tmp_path / "metadata.json").read_text())
    assert read["model_parent_module"] == "scgacl_scvi"
    assert read["scvi_version"] == model.registry_["scvi_version"]


def test_a_folder_is_replaced_only_where_asked_for(model, tmp_path):
    hub.export(model, tmp_path / "m", license_info=LICENCE)
    with pytest.raises(ValueError, match="already exists"):
        hub.export(model, tmp_path / "m", license_info=LICENCE)
    hub.export(model, tmp_path / "m", license_info="mit", overwrite=True)
    assert "license: mit" in (tmp_path / "m" / "README.md").read_text()


def test_a_model_that_cannot_be_described_is_refused(model, tmp_path):
    adata = make_counts()
    SCGACL.setup_anndata(adata)
    untrained = SCGACL(adata, gene_likelihood="nb")
    for call in (hub.metadata, lambda m: hub.export(m, tmp_path / "u", license_info=LICENCE)):
        with pytest.raises(RuntimeError):
            call(untrained)
    model.save(tmp_path / "m")
    with pytest.raises(ValueError, match="needs the data it was trained on"):
        hub.model_card(SCGACL.load(tmp_path / "m", adata=False), license_info=LICENCE)
