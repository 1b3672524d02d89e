"""New cells, batches and gene panels beside a trained model: the reference stays to the bit."""

import logging

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from anndata import AnnData
from tests.conftest import make_counts
from tests.model.conftest import SHORT

from scgacl_scvi import SCGACL
from scgacl_scvi._keys import MISSING

SMALL = {"n_latent": 4, "n_hidden": 16, "n_hidden_discriminator": 16}
KINDS = {
    "nb": {"gene_likelihood": "nb"},
    "zinb": {"gene_likelihood": "zinb"},
    "gene-batch": {"gene_likelihood": "zinb", "dispersion": "gene-batch"},
    "normal": {"gene_likelihood": "normal"},
}


def _cells(n: int = 150) -> AnnData:
    adata = make_counts(n, 30, dropout=0.2)
    adata.obs["batch"] = np.array(["one", "two", "three"])[np.arange(n) % 3]
    adata.obs["site"] = np.where(np.arange(n) % 2, "x", "y")
    x = adata.X.toarray()
    x[adata.obs["batch"] == "three"] *= 2  # a batch unlike the others
    x[np.ix_(adata.obs["batch"] == "three", [0, 1])] *= 3
    adata.X = x
    return adata


def _split(batches: list[str]) -> tuple[AnnData, AnnData]:
    adata = _cells()
    known = adata.obs["batch"].isin(batches).to_numpy()
    return adata[known].copy(), adata[~known].copy()


def _train(adata: AnnData, setup: dict | None = None, **model) -> SCGACL:
    SCGACL.setup_anndata(adata, batch_key="batch", **(setup or {}))
    fitted = SCGACL(adata, **SMALL, **model)
    fitted.train(**SHORT)
    return fitted


def _impute(model: SCGACL, adata: AnnData, **settings) -> np.ndarray:
    return model.get_imputed_expression(adata.copy(), return_numpy=True, layer_key=None, **settings)


def _bits(model: SCGACL) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in model.module.state_dict().items()}


@pytest.fixture(scope="module")
def references() -> dict[str, SCGACL]:
    # Covariates before and after, so that a new batch's column is neither the last nor the only one.
    setup = {"categorical_covariate_keys": ["site"], "continuous_covariate_keys": ["score"], "labels_key": "cell_type"}
    return {kind: _train(_split(["one", "two"])[0], setup, **model) for kind, model in KINDS.items()}


def test_dispersions_of_the_reference_stand_still_while_a_query_trains(references):
    """Not only at the end, when every value of the reference is put back: those of new batches are drawn to them."""
    query = SCGACL.load_query_data(_split(["one", "two"])[1], references["gene-batch"])
    before = query.module.log_theta.detach().clone()
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, plan, *_):
            seen.append(plan.module.log_theta.detach().clone())

    query.train(max_epochs=4, batch_size=16, enable_progress_bar=False, callbacks=[Watch()])
    assert len(seen) > 8
    assert all(torch.equal(now[:2], before[:2]) for now in seen)
    assert not torch.equal(seen[-1][2], before[2])


def test_the_priors_draw_dispersions_of_new_batches_to_the_reference_alone(references):
    module = SCGACL.load_query_data(_split(["one", "two"])[1], references["gene-batch"]).module
    module.log_theta.grad, module.n_frozen_batches = torch.zeros_like(module.log_theta), 2
    with torch.no_grad():
        module.log_theta[2] += 3.0
    module.add_prior_gradients(0.0, 0.5)
    assert not module.log_theta.grad[:2].any()
    expected = module.log_theta[2] - module.log_theta[:2].mean(0)
    torch.testing.assert_close(module.log_theta.grad[2], expected.detach())


def test_nothing_of_an_unfrozen_query_is_the_references(references):
    new = _split(["one", "two"])[1]
    assert SCGACL.load_query_data(new, references["gene-batch"]).module.n_trained_batches == 2
    assert SCGACL.load_query_data(new, references["gene-batch"], unfrozen=True).module.n_trained_batches == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_leaves_every_value_of_the_reference_as_it_is_and_learns_the_new_batch(references, kind, tmp_path):
    reference, new = references[kind], _split(["one", "two"])[1]
    before, own = _bits(reference), _impute(reference, reference.adata)
    query = SCGACL.load_query_data(new, reference)
    untrained = _impute(query, new)
    counts = reference.module.gene_likelihood != "normal"
    kind = {"policy": "denoise", "scale": "counts"} if counts else {}
    first = _impute(query, new, **kind)
    query.train(max_epochs=3, enable_progress_bar=False)
    assert np.isfinite(untrained).all()
    assert _bits(reference) == before
    np.testing.assert_array_equal(_impute(query, reference.adata), own)
    start = reference.module.state_dict()
    for key, value in query.module.state_dict().items():
        if value.shape == start[key].shape:
            assert value.numpy().tobytes() == start[key].numpy().tobytes(), key
        elif value.ndim == 2 and value.shape[0] != start[key].shape[0]:  # a row for each batch
            assert torch.equal(value[:2], start[key]), key
    assert (_impute(query, new, **kind) != first).any()

    query.save(tmp_path / "query", save_anndata=False)
    loaded = SCGACL.load(tmp_path / "query", adata=new)
    loaded.train(max_epochs=1, enable_progress_bar=False)
    np.testing.assert_array_equal(_impute(loaded, reference.adata), own)


def test_a_new_batch_begins_as_the_average_of_the_known_ones(references):
    query = SCGACL.load_query_data(_split(["one", "two"])[1], references["nb"])
    weight = query.module.decoder.hidden.layers[0].fc_layers[0][0].weight
    # columns: z (4), score, one, two, three, x, y
    assert weight.shape[1] == 4 + 1 + 3 + 2
    torch.testing.assert_close(weight[:, 7], weight[:, 5:7].mean(1))
    start = references["nb"].module.decoder.hidden.layers[0].fc_layers[0][0].weight
    assert torch.equal(weight[:, [0, 1, 2, 3, 4, 5, 6, 8, 9]], start)


@pytest.mark.parametrize("batch_key", ["batch", None])
def test_a_reference_of_one_batch_or_none_takes_new_cells(batch_key):
    one, two = _split(["one"])
    SCGACL.setup_anndata(one, batch_key=batch_key)
    reference = SCGACL(one, gene_likelihood="nb", **SMALL)
    reference.train(**SHORT)
    own = _impute(reference, one)
    query = SCGACL.load_query_data(two, reference)
    query.train(max_epochs=1, enable_progress_bar=False)
    np.testing.assert_array_equal(_impute(query, one), own)
    assert np.isfinite(_impute(query, two)).all()


def test_known_batches_are_imputed_at_once_and_leave_nothing_to_train(references, caplog):
    reference = references["nb"]
    new = reference.adata[:20].copy()
    values = _impute(reference, reference.adata)[:20]
    np.testing.assert_array_equal(_impute(reference, new), values)
    query = SCGACL.load_query_data(new, reference)
    with caplog.at_level(logging.WARNING):
        query.train()
    assert "nothing to train" in caplog.text
    np.testing.assert_array_equal(_impute(query, new), values)


def test_an_unknown_batch_is_refused_with_the_remedy(references):
    with pytest.raises(ValueError, match=r"three.*load_query_data"):
        references["nb"].get_imputed_expression(_split(["one", "two"])[1])


def test_a_query_knows_nothing_of_the_references_fit(references):
    query = SCGACL.load_query_data(_split(["one", "two"])[1], references["nb"])
    assert query.history is None
    assert query.validation_indices is None
    query.train(max_epochs=2, enable_progress_bar=False)
    assert len(query.history["train_loss"]) == 2
    assert query.gene_report().attrs["heldout_cells"] == "validation"
    with pytest.raises(ValueError, match="evidence bound alone"):
        query.train(joint_epochs=2)


def test_unfrozen_trains_everything_and_other_freezing_is_refused(references):
    new = _split(["one", "two"])[1]
    with pytest.raises(TypeError, match="freeze_expression"):
        SCGACL.load_query_data(new, references["nb"], freeze_expression=False)
    query = SCGACL.load_query_data(new, references["nb"], unfrozen=True)
    query.train(joint_epochs=1, enable_progress_bar=False)
    changed = query.module.decoder.output.weight - references["nb"].module.decoder.output.weight
    assert (changed != 0).all()


# --- genes that were not measured ------------------------------------------------------------------------------


def _named(x: np.ndarray, adata: AnnData, names: list[str]) -> AnnData:
    found = AnnData(x, obs=adata.obs.copy())
    found.var_names = names
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_unmeasured_genes_are_unknown_and_not_zero(references, kind):
    reference, missing = references[kind], [3, 8]
    cells = reference.adata[:30].copy()
    kept = [gene for gene in reversed(range(cells.n_vars)) if gene not in missing]
    panel = _named(cells.X[:, kept], cells, list(cells.var_names[kept]))
    prepared = SCGACL.prepare_query_anndata(panel, reference, inplace=False)
    assert list(panel.var_names) == list(cells.var_names[kept])  # not in place
    assert prepared.var_names.tolist() == cells.var_names.tolist()
    assert np.flatnonzero(prepared.var[MISSING]).tolist() == missing
    for policy in ("impute", "denoise"):
        values = _impute(reference, prepared, policy=policy)
        assert (values[:, missing] > 0).all()
    # What stands in the padding is never read.
    filled = prepared.copy()
    filled.X = filled.X.toarray()
    filled.X[:, missing] = 50
    if kind != "normal":
        np.testing.assert_array_equal(_impute(reference, filled, policy="denoise"), values)
        x, missing_genes = torch.as_tensor(prepared.X.toarray()), torch.tensor(prepared.var[MISSING].tolist())
        measured = (~missing_genes).float().expand_as(x)
        library = reference.module.library((x * measured).sum(-1, keepdim=True), visible=measured)
        assert (library.numpy().ravel() > x.numpy().sum(1)).all()
        spread = reference.get_imputed_uncertainty(prepared, return_type="numpy")
        assert np.isfinite(spread).all()
        assert (spread[:, missing] > 0).all()
        assert reference.posterior_predictive_sample(prepared)[:, missing].sum() > 0
        assert reference.get_dropout_probability(prepared)[:, missing].nnz == 0


def test_padding_twice_and_saved_models_work_alike(references, tmp_path):
    reference, missing = references["nb"], [2]
    cells = reference.adata[:20].copy()
    panel = _named(np.delete(cells.X, missing, 1), cells, list(np.delete(cells.var_names, missing)))
    references["nb"].save(tmp_path / "model", save_anndata=False, overwrite=True)
    SCGACL.prepare_query_anndata(panel, str(tmp_path / "model"))
    SCGACL.prepare_query_anndata(panel, reference)
    assert np.flatnonzero(panel.var[MISSING]).tolist() == missing
    query = SCGACL.load_query_data(panel, str(tmp_path / "model"))
    np.testing.assert_array_equal(_impute(query, panel), _impute(reference, panel))
    whole = SCGACL.prepare_query_anndata(cells, reference, inplace=False)
    assert MISSING not in whole.var
    names = SCGACL.prepare_query_anndata(cells, reference, return_reference_var_names=True)
    assert names.tolist() == cells.var_names.tolist()


def test_a_query_with_unmeasured_genes_trains_on_the_others(references):
    reference = references["nb"]
    new = _split(["one", "two"])[1]
    panel = _named(np.delete(new.X, [4], 1), new, list(np.delete(new.var_names, [4])))
    SCGACL.prepare_query_anndata(panel, reference)
    query = SCGACL.load_query_data(panel, reference)
    query.train(max_epochs=2, enable_progress_bar=False)
    assert (query.module.gate.batch_log_ratio[2, 4] == 0).all()
    assert (_impute(query, panel)[:, 4] > 0).all()
