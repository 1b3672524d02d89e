"""What is saved is what is loaded: in another process, without data, by the other line of scvi-tools."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from tests.conftest import make_counts

from scgacl_scvi import SCGACL

from .conftest import KINDS, short_fit

_LOAD = """
import sys, numpy as np
from scgacl_scvi import SCGACL
model = SCGACL.load(sys.argv[1])
np.save(sys.argv[2], model.get_imputed_expression(return_numpy=True, layer_key=None))
assert model.history["train_loss"].shape[0] == 6, model.history
model.train(pretrain_epochs=0, vade_epochs=0, joint_epochs=1, enable_progress_bar=False)
"""
_MAKE = """
import sys, numpy as np
sys.path.insert(0, sys.argv[3])
from tests.model.conftest import short_fit
from tests.conftest import make_counts
model = short_fit(make_counts(), "cell_type", {"batch_key": "batch"}, gene_likelihood="nb")
np.save(sys.argv[2], model.get_imputed_expression(return_numpy=True, layer_key=None))
model.save(sys.argv[1], save_anndata=True)
"""


def run(python: str, code: str, *arguments) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_another_process_loads_the_same_bits_and_trains_on(models, tmp_path):
    before = models["zinb"].get_imputed_expression(return_numpy=True, layer_key=None)
    models["zinb"].save(tmp_path / "m", save_anndata=True)
    run(sys.executable, _LOAD, tmp_path / "m", tmp_path / "values.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "values.npy"), before)


@pytest.mark.skipif(
    "SCGACL_OTHER_PYTHON" not in os.environ,
    reason="SCGACL_OTHER_PYTHON is not set: a Python that has this package with the other line of scvi-tools",
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_goes_between_the_two_lines_of_scvi_tools(models, kind, tmp_path):
    other = os.environ["SCGACL_OTHER_PYTHON"]
    before = models[kind].get_imputed_expression(return_numpy=True, layer_key=None)
    models[kind].save(tmp_path / "there", save_anndata=True)
    run(other, _LOAD, tmp_path / "there", tmp_path / "there.npy")
    np.testing.assert_allclose(np.load(tmp_path / "there.npy"), before, rtol=1e-4, atol=1e-5)
    if kind == "nb":
        run(other, _MAKE, tmp_path / "here", tmp_path / "here.npy", os.getcwd())
        loaded = SCGACL.load(tmp_path / "here")
        values = loaded.get_imputed_expression(return_numpy=True, layer_key=None)
        np.testing.assert_allclose(values, np.load(tmp_path / "here.npy"), rtol=1e-4, atol=1e-5)
        assert loaded.label_names_ == ["A", "B", "C"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_without_data_takes_cells_and_says_what_else_it_lacks(models, kind, tmp_path):
    whole = models[kind].get_imputed_expression(return_numpy=True, layer_key=None)
    models[kind].save(tmp_path / "m")
    loaded = SCGACL.load(tmp_path / "m", adata=False)
    assert loaded.history.keys() == models[kind].history.keys()
    for key, table in models[kind].history.items():
        pd.testing.assert_frame_equal(loaded.history[key], table)
    for method in ("get_imputed_expression", "get_latent_representation", "predict_cluster", "get_elbo"):
        with pytest.raises(ValueError, match="without data.*adata="):
            getattr(loaded, method)()
    for method in ("gene_report", "train"):
        with pytest.raises(ValueError, match="without data"):
            getattr(loaded, method)()
    cells = models[kind].adata.copy()
    np.testing.assert_array_equal(loaded.get_imputed_expression(cells, return_numpy=True), whole)
    assert "scgacl" in cells.layers


def test_what_looks_at_the_training_data_again_refuses_others(models, tmp_path):
    models["nb"].save(tmp_path / "m")
    same = SCGACL.load(tmp_path / "m", adata=models["nb"].adata.copy())
    assert same.gene_report().shape[0] == 30
    others = SCGACL.load(tmp_path / "m", adata=make_counts(seed=7))
    others.get_imputed_expression()
    for call in (others.gene_report, lambda: others.get_dropout_probability(method="mixture")):
        with pytest.raises(ValueError, match="loaded with others"):
            call()


def test_a_prefix_and_overwriting_work_as_in_scvi_tools(models, tmp_path):
    models["nb"].save(tmp_path / "m", prefix="a_")
    with pytest.raises(ValueError, match="already exists"):
        models["nb"].save(tmp_path / "m")
    models["nb"].save(tmp_path / "m", prefix="a_", overwrite=True, save_anndata=True)
    assert SCGACL.load(tmp_path / "m", prefix="a_").is_trained
    with pytest.raises(ValueError, match="Failed to load"):
        SCGACL.load(tmp_path / "m")


def test_a_model_of_another_class_is_refused(tmp_path):
    from scvi.model import SCVI

    adata = make_counts()
    SCVI.setup_anndata(adata)
    SCVI(adata).save(tmp_path / "m")
    with pytest.raises(ValueError, match="different class"):
        SCGACL.load(tmp_path / "m", adata=adata)


def test_datamodules_are_refused_with_the_reason(models, tmp_path):
    reason = "does not take a datamodule.*backed"
    model = short_fit(make_counts(), gene_likelihood="nb")
    registry = {**model.registry_, "setup_method_name": "setup_datamodule"}
    model.save(tmp_path / "m")
    for call in (
        lambda: SCGACL(registry=registry, gene_likelihood="nb"),
        lambda: model.train(datamodule=object()),
        lambda: SCGACL.load(tmp_path / "m", datamodule=object()),
    ):
        with pytest.raises(NotImplementedError, match=reason):
            call()


def test_a_saved_model_of_a_datamodule_is_refused_with_the_reason(tmp_path):
    import torch

    model = short_fit(make_counts(), gene_likelihood="nb")
    model.save(tmp_path / "m")
    saved = torch.load(tmp_path / "m" / "model.pt", weights_only=False)
    saved["attr_dict"]["registry_"]["setup_method_name"] = "setup_datamodule"
    torch.save(saved, tmp_path / "m" / "model.pt")
    for adata in (False, make_counts()):
        with pytest.raises(NotImplementedError, match="does not take a datamodule"):
            SCGACL.load(tmp_path / "m", adata=adata)
