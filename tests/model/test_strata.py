"""``stratify_by``: conditions lend each other nothing, and their difference is kept."""

import numpy as np
import pytest
import torch
from anndata import AnnData
from tests.model.conftest import SHORT, short_fit

from scgacl_scvi import SCGACL, evaluate


def _conditions(n: int = 240, n_genes: int = 40, seed: int = 0, dropout: float = 0.0) -> AnnData:
    """Three types in two conditions; ten genes are 4-fold up in the treated cells, in all types."""
    rng = np.random.default_rng(seed)
    types, treated = np.arange(n) % 3, np.arange(n) % 2 == 1
    rates = rng.gamma(1.0, 4.0, (3, n_genes))[types] + 0.3
    rates[np.ix_(treated, range(10))] *= 4
    x = rng.poisson(rng.gamma(5.0, rates / 5.0)) * (rng.random(rates.shape) >= dropout)
    x[x.sum(1) == 0, 0] = 1
    adata = AnnData(x.astype(np.float32))
    adata.obs["condition"] = np.where(treated, "treated", "control")
    adata.obs["cell_type"] = np.array(["A", "B", "C"], dtype=object)[types]
    adata.obs["batch"] = np.where(rng.random(n) < 0.5, "one", "two")
    return adata


@pytest.fixture(scope="module")
def stratified() -> SCGACL:
    return short_fit(_conditions(), "cell_type", {"stratify_by": "condition"}, gene_likelihood="nb")


def test_no_cell_belongs_to_a_cluster_of_another_condition(stratified):
    soft = stratified.predict_cluster(soft=True)
    assert soft.columns.tolist() == [f"{s}: {c}" for s in ("control", "treated") for c in ("A", "B", "C")]
    treated = (stratified.adata.obs["condition"] == "treated").to_numpy()
    assert (soft.to_numpy()[treated][:, :3] == 0).all()
    assert (soft.to_numpy()[~treated][:, 3:] == 0).all()
    np.testing.assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_each_condition_keeps_the_mean_of_its_own_counts(likelihood):
    adata = _conditions(dropout=0.3 if likelihood == "zinb" else 0.0)
    with_strata = short_fit(adata, None, {"stratify_by": "condition"}, gene_likelihood=likelihood, n_clusters=3)
    raw = evaluate.lognorm(adata.X)
    values = with_strata.get_imputed_expression(policy="denoise", return_numpy=True)
    kept = evaluate.difference_kept(values, raw, adata.obs["condition"])
    assert 0.9 < kept.slope < 1.1
    if likelihood == "nb":
        means = [
            [np.expm1(v[(adata.obs["condition"] == c).to_numpy()]).mean(0) for c in ("control", "treated")]
            for v in (values, raw)
        ]
        np.testing.assert_allclose(means[0], means[1], rtol=0.1)


def test_a_gene_that_only_one_condition_shows_is_not_filled_in_the_other():
    adata = _conditions()
    control = (adata.obs["condition"] == "control").to_numpy()
    adata.X[control, 3] = 0
    fitted = short_fit(adata, None, {"stratify_by": "condition"}, gene_likelihood="nb", n_clusters=3)
    values = fitted.get_imputed_expression(policy="denoise", scale="cp10k", return_numpy=True)
    assert values[control, 3].mean() < 0.01 * values[~control, 3].mean()
    assert (fitted.get_imputed_expression(return_numpy=True)[control, 3] == 0).all()


def test_strata_stand_beside_batches_labels_and_each_likelihood():
    for likelihood in ("nb", "normal"):
        fitted = short_fit(
            _conditions(), "cell_type", {"stratify_by": "condition", "batch_key": "batch"}, gene_likelihood=likelihood
        )
        assert np.isfinite(fitted.get_imputed_expression(return_numpy=True)).all()
        assert np.isfinite(fitted.get_dropout_probability(method="mixture", return_type="numpy")).all()
        assert np.isfinite(fitted.get_marginal_ll(n_mc_samples=2))
        assert np.isfinite(
            fitted.get_imputed_expression(policy="denoise", transform_batch="one", return_numpy=True)
        ).all()


def test_strata_survive_saving_and_judge_new_cells(stratified, tmp_path):
    stratified.save(tmp_path / "model", save_anndata=False)
    loaded = SCGACL.load(tmp_path / "model", adata=stratified.adata)
    values = stratified.get_imputed_expression(return_numpy=True)
    np.testing.assert_array_equal(loaded.get_imputed_expression(return_numpy=True), values)
    assert loaded.stratum_names_ == ["control", "treated"]
    new = stratified.adata[stratified.adata.obs["condition"] == "treated"].copy()
    rows = (stratified.adata.obs["condition"] == "treated").to_numpy()
    np.testing.assert_array_equal(loaded.get_imputed_expression(new, return_numpy=True), values[rows])
    query = SCGACL.load_query_data(new, loaded)
    np.testing.assert_array_equal(query.get_imputed_expression(return_numpy=True), values[rows])
    new.obs["condition"] = "another"
    with pytest.raises(ValueError, match=r"another.*trained on the strata"):
        loaded.get_imputed_expression(new)


def test_strata_that_cannot_stand_alone_are_refused():
    adata = _conditions()
    adata.obs["one"] = "a"
    adata.obs["few"] = np.where(np.arange(adata.n_obs) < 4, "few", "many")
    adata.obs["holes"] = np.where(np.arange(adata.n_obs) < 40, None, adata.obs["condition"])
    for key, message in (("one", "all cells are 'a'"), ("few", r"'few' has 4 cell\(s\)"), ("holes", "no value in")):
        with pytest.raises(ValueError, match=message):
            SCGACL.setup_anndata(adata, stratify_by=key)
    with pytest.raises(KeyError, match=r"stratify_by='nothing'"):
        SCGACL.setup_anndata(adata, stratify_by="nothing")
    with pytest.raises(ValueError, match="is `batch_key`, too"):
        SCGACL.setup_anndata(adata, stratify_by="condition", batch_key="condition")
    SCGACL.setup_anndata(adata, stratify_by="condition", labels_key="cell_type")
    with pytest.raises(ValueError, match=r"no part of the published procedure"):
        SCGACL(adata, preset="paper")


def test_smoothing_compares_with_and_without_and_leaves_the_data_alone():
    adata = _conditions()
    before = adata.copy()
    table = evaluate.smoothing(
        adata, "condition", "cell_type", model={"gene_likelihood": "nb", "n_clusters": 3, "n_hidden": 16},
        train=SHORT, setup={"batch_key": "batch"},
    )  # fmt: skip
    assert table["fit"].unique().tolist() == ["without strata", "with strata"]
    assert table["cells"].tolist() == ["all", "A", "B", "C"] * 2
    kept = table.set_index(["fit", "cells"])["difference_kept"]
    assert 0.95 < kept["with strata", "all"] < 1.05
    assert abs(kept["with strata", "all"] - 1) < abs(kept["without strata", "all"] - 1)
    assert list(adata.uns) == list(before.uns)
    assert list(adata.obs) == list(before.obs)
    assert not adata.layers


def test_smoothing_of_more_than_two_conditions_compares_each_with_the_others():
    adata = _conditions()
    adata.obs["dose"] = np.array(["none", "low", "high"])[np.arange(adata.n_obs) % 3]
    table = evaluate.smoothing(
        adata, "dose", model={"gene_likelihood": "nb", "n_clusters": 2, "n_hidden": 8}, train=SHORT
    )
    assert table["cells"].tolist() == ["all, high", "all, low", "all, none"] * 2


def test_a_second_training_fits_the_strata_anew(stratified):
    factor = stratified.module.gate.stratum_log_factor.clone()
    assert (factor != 0).any()
    again = short_fit(_conditions(), "cell_type", {"stratify_by": "condition"}, gene_likelihood="nb")
    again.train(joint_epochs=1, enable_progress_bar=False)
    assert not torch.equal(again.module.gate.stratum_log_factor, factor)
