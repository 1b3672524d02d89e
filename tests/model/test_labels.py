"""Labels of every kind: all, some, none, wrong, missing, of one cell, many; and what must not depend on them."""

import numpy as np
import pandas as pd
import pytest
import torch
from scvi import REGISTRY_KEYS
from tests.conftest import make_counts
from tests.model.conftest import short_fit

from scgacl_scvi import SCGACL
from scgacl_scvi._keys import HELD_OUT
from scgacl_scvi.module import heldout_loss, hold_out

N = 240


def _some(rng, types):
    return np.where(rng.random(N) < 0.1, types, None)


def _one_cell(rng, types):
    labels = types.copy()
    labels[[0, 7]] = ["alone", "lonely"]
    return labels


KINDS = {
    "all": lambda rng, types: types,
    "a tenth": _some,
    "none": lambda rng, types: np.full(N, np.nan),
    "unlabelled by name": lambda rng, types: np.where(rng.random(N) < 0.5, types, "Unknown"),
    "missing as NaN": lambda rng, types: np.where(rng.random(N) < 0.5, types, np.nan),
    "wrong": lambda rng, types: rng.permutation(types),
    "of one cell": _one_cell,
    "a hundred": lambda rng, types: np.array([f"type {i % 100}" for i in range(N)], dtype=object),
    "numbers": lambda rng, types: pd.factorize(types)[0],
    "categories": lambda rng, types: pd.Categorical(types, categories=["A", "B", "C", "never seen"]),
}


@pytest.mark.filterwarnings("ignore:Category .* has fewer than 3 cells")  # scvi-tools says so, rightly
@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_every_kind_give_finite_values(kind):
    adata = make_counts(N, 25)
    labels = KINDS[kind](np.random.default_rng(0), adata.obs["cell_type"].to_numpy())
    adata.obs["label"] = labels
    before = adata.obs["label"].copy()
    model = short_fit(adata, "label", gene_likelihood="nb")
    assert np.isfinite(model.get_imputed_expression(return_numpy=True)).all()
    assert np.isfinite(model.get_dropout_probability(method="mixture").data).all()
    assert len(model.predict_cluster()) == N
    assert np.isfinite(model.history["train_loss"].to_numpy(dtype=float)).all()
    pd.testing.assert_series_equal(adata.obs["label"], before)
    known = {str(label) for label in pd.Series(labels).dropna()} - {"Unknown"}
    assert set(model.label_names_) == known


def _with_types(flipped: float = 0.0, seed: int = 0):
    """Well-separated types, and labels of which a share is another type's."""
    adata = make_counts(N, 40, seed=seed)
    rng = np.random.default_rng(seed)
    types = adata.obs["cell_type"].to_numpy()
    wrong = rng.random(N) < flipped
    other = {"A": "B", "B": "C", "C": "A"}
    adata.obs["label"] = np.where(wrong, [other[t] for t in types], types)
    return adata, types, wrong


def test_a_cell_whose_expression_contradicts_its_label_goes_where_its_expression_says():
    adata, types, wrong = _with_types(0.2)
    SCGACL.setup_anndata(adata, labels_key="label")
    model = SCGACL(adata, gene_likelihood="nb", n_latent=4, n_hidden=32, n_hidden_discriminator=16)
    model.train(enable_progress_bar=False)
    assert (model.predict_cluster() == types).mean() > 0.95
    tensors = next(iter(model._make_data_loader(adata, batch_size=N)))
    z = model.module.encode(**model.module._get_inference_input(tensors))["qz"].loc
    given = model.module.responsibilities(z, tensors).argmax(1).numpy()
    assert (np.array(model.label_names_)[given][wrong] == types[wrong]).mean() > 0.9
    slip = torch.sigmoid(model.module.prior.slip_logit).item()
    clean, _, _ = _with_types(0.0)
    SCGACL.setup_anndata(clean, labels_key="label")
    trusting = SCGACL(clean, gene_likelihood="nb", n_latent=4, n_hidden=32, n_hidden_discriminator=16)
    trusting.train(max_epochs=10, enable_progress_bar=False)
    assert slip > torch.sigmoid(trusting.module.prior.slip_logit).item()


def test_labels_leak_neither_into_latents_nor_clusters_nor_the_held_out_score():
    adata, _, _ = _with_types()
    model = short_fit(adata, "label", gene_likelihood="nb")
    other = adata.copy()
    other.obs["label"] = np.roll(other.obs["label"].to_numpy(), 1)
    np.testing.assert_array_equal(model.get_latent_representation(other), model.get_latent_representation())
    np.testing.assert_array_equal(model.predict_cluster(other), model.predict_cluster())
    scores = []
    for data in (adata, other):
        tensors = next(iter(model._make_data_loader(model._validate_anndata(data), batch_size=N)))
        held_out = hold_out(tensors[REGISTRY_KEYS.X_KEY], 0.1, torch.Generator().manual_seed(0))
        scores.append(heldout_loss(model.module, {**tensors, HELD_OUT: held_out}))
    assert (tensors[REGISTRY_KEYS.LABELS_KEY] != 0).any()
    assert torch.equal(*scores)
