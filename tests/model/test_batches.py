"""Batches: what differs between them is not flattened, what does not is not invented; dispersions of each."""

import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import stats
from tests.model.conftest import SHORT

from scgacl_scvi import SCGACL
from scgacl_scvi.datasets import simulate_null
from scgacl_scvi.evaluate import null_correlation
from scgacl_scvi.train._gate_fit import MIN_EVIDENCE

SMALL = {"n_latent": 4, "n_hidden": 32, "n_hidden_discriminator": 16}
FAST = {"pretrain_epochs": 10, "vade_epochs": 8, "joint_epochs": 4, "pretrain_lr": 5e-3, "vade_lr": 5e-3}
SHIFTED = slice(0, 12)


def _null_with_batches(shift: float, seed: int = 0) -> AnnData:
    """Independent genes and two batches; some genes that differ between no types differ between the batches."""
    adata = simulate_null(400, 80, seed=seed)
    order = np.argsort(adata.var["differential"].to_numpy(), kind="stable")  # independent genes first
    adata = adata[:, order].copy()
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, 2, adata.n_obs)
    x = adata.X.toarray()
    x[batch == 1, SHIFTED] = rng.poisson(x[batch == 1, SHIFTED] * np.exp(shift))
    adata.X = x.astype(np.float32)
    adata.obs["batch"] = np.array(["one", "two"])[batch]
    return adata


def _train(adata: AnnData, gated: bool = True, **model) -> SCGACL:
    SCGACL.setup_anndata(adata, batch_key="batch")
    fitted = SCGACL(adata, gene_likelihood="nb", **SMALL, **model)
    fitted.train(**FAST, batch_size=32, enable_progress_bar=False, gate_genes=gated)
    return fitted


@pytest.fixture(scope="module")
def shifted() -> SCGACL:
    return _train(_null_with_batches(1.0))


def test_genes_that_differ_between_batches_and_nothing_else_keep_their_mean_of_each_batch(shifted):
    gate, two = shifted.module.gate, (shifted.adata.obs["batch"] == "two").to_numpy()
    closed = (gate.evidence < MIN_EVIDENCE).numpy()
    known = (gate.batch_log_ratio != 0).any(0).numpy()
    strong = shifted.adata.X.mean(0) > 0.8  # a tenth of the entries of fewer counts says nothing
    assert known[SHIFTED][strong[SHIFTED]].all()
    genes = np.flatnonzero(closed & known & strong)
    genes = genes[genes < SHIFTED.stop]
    assert len(genes) > 4
    values = np.expm1(shifted.get_imputed_expression(policy="denoise", return_numpy=True))
    ratio = np.log(values[two][:, genes].mean(0) / values[~two][:, genes].mean(0))
    assert np.abs(ratio - 1.0).max() < 0.35
    np.testing.assert_allclose(ratio.mean(), 1.0, atol=0.2)


def test_batches_that_do_not_differ_move_no_gene_and_invent_no_correlation():
    model = _train(_null_with_batches(0.0))
    known = (model.module.gate.batch_log_ratio != 0).any(0).numpy()
    differential = model.adata.var["differential"].to_numpy()
    assert known[~differential].sum() <= 2  # 43 genes, each with a chance of less than exp(-1)
    values = model.get_imputed_expression(policy="denoise", return_numpy=True)
    assert null_correlation(values, differential).false_share < 0.03


def test_transform_batch_moves_what_differs_by_name_by_list_and_not_at_all(shifted):
    two = (shifted.adata.obs["batch"] == "two").to_numpy()
    as_one, as_two, both, own = (
        np.expm1(shifted.get_imputed_expression(policy="denoise", transform_batch=b, return_numpy=True))
        for b in ("one", "two", ["one", "two"], None)
    )
    np.testing.assert_allclose(as_two[two], own[two], rtol=1e-4)
    np.testing.assert_allclose(as_one[~two], own[~two], rtol=1e-4)
    np.testing.assert_allclose(both, (as_one + as_two) / 2, rtol=1e-4, atol=1e-6)
    ratio = np.log(as_two / as_one)
    known = (shifted.module.gate.batch_log_ratio != 0).any(0).numpy()
    assert np.abs(ratio[:, SHIFTED][:, known[SHIFTED]].mean() - 1.0) < 0.25
    still = (shifted.module.gate.batch_log_ratio == 0).all(0).numpy()
    still &= (shifted.module.gate.evidence < MIN_EVIDENCE).numpy()
    assert still.sum() > 5
    np.testing.assert_allclose(ratio[:, still], 0, atol=1e-5)


# --- dispersion ------------------------------------------------------------------------------------------------


def _two_dispersions(n: int = 240, genes: int = 30) -> AnnData:
    rng = np.random.default_rng(0)
    batch = np.arange(n) % 2
    theta = np.where(batch == 0, 20.0, 0.7)[:, None]
    adata = AnnData(rng.poisson(rng.gamma(theta, 8.0 / theta, (n, genes))).astype(np.float32))
    adata.obs["batch"] = np.array(["even", "odd"])[batch]
    return adata


def test_dispersion_of_each_batch_is_learnt_and_enters_the_values():
    models = {d: _train(_two_dispersions(), dispersion=d, gated=False) for d in ("gene", "gene-batch")}
    one, each = (models[d].module for d in ("gene", "gene-batch"))
    assert one.log_theta.shape == (30,)
    assert each.log_theta.shape == (2, 30)
    even, odd = each.log_theta.detach()
    assert (even > odd + 0.5).float().mean() > 0.9
    assert torch.allclose(each.theta, each.log_theta.mean(0).exp())
    # A count says more where cells vary much: values follow it there, and hardly in the other batch.
    follow = {}
    for d, model in models.items():
        values = np.expm1(model.get_imputed_expression(policy="denoise", return_numpy=True))
        raw = model.adata.X / model.adata.X.sum(1, keepdims=True) * float(model.module.median_library)
        for name in ("even", "odd"):
            rows = (model.adata.obs["batch"] == name).to_numpy()
            follow[d, name] = stats.linregress(raw[rows].ravel(), values[rows].ravel()).slope
    assert follow["gene-batch", "even"] < follow["gene", "even"]
    assert follow["gene-batch", "odd"] > follow["gene", "odd"]


def test_every_getter_takes_dispersions_of_batches():
    adata = _two_dispersions(60)
    SCGACL.setup_anndata(adata, batch_key="batch")
    for likelihood in ("nb", "zinb"):
        model = SCGACL(adata, gene_likelihood=likelihood, dispersion="gene-batch", **SMALL)
        model.train(**SHORT)
        for values in (
            model.get_imputed_expression(return_numpy=True),
            model.get_imputed_expression(policy="denoise", estimand="log", return_numpy=True),
            model.get_imputed_uncertainty(return_type="numpy"),
            model.get_dropout_probability(return_type="numpy"),
            model.get_normalized_expression(return_numpy=True),
            model.gene_report()["n_seen"].to_numpy(),
        ):
            assert np.isfinite(values).all()
        assert model.posterior_predictive_sample(given_counts=False, transform_batch="odd").shape == adata.shape


@pytest.fixture(scope="module")
def half_gated() -> SCGACL:
    """Two dispersions; of the genes, the first half is made to follow the generator, the others to keep their mean."""
    model = _train(_two_dispersions())
    gate = model.module.gate
    gate.weight_cluster.zero_()
    gate.weight_generator.copy_((torch.arange(30) < 15).float())
    gate.log_theta_ratio.copy_(torch.linspace(-0.5, 0.5, 30) * (torch.arange(30) >= 15))
    return model


def _thetas(model: SCGACL, **of) -> np.ndarray:
    module = model.module.eval()
    tensors = next(iter(model._make_data_loader(adata=model.adata, batch_size=model.adata.n_obs)))
    with torch.no_grad():
        inferred = module.encode(**module._get_inference_input(tensors))
        inferred["z"] = inferred["qz"].loc
        return module.predict(tensors, inferred, **of)["theta"].numpy()


def test_genes_that_follow_the_generator_have_a_dispersion_of_each_batch_and_others_one(half_gated):
    module = half_gated.module
    rows = module.log_theta.detach().exp().numpy()
    one = (module.theta * module.gate.log_theta_ratio.exp()).detach().numpy()
    odd = (half_gated.adata.obs["batch"] == "odd").to_numpy().astype(int)
    theta = _thetas(half_gated)
    assert (np.abs(np.log(rows[0] / rows[1]))[:15] > 0.1).mean() > 0.8
    np.testing.assert_allclose(theta[:, :15], rows[odd][:, :15], rtol=1e-5)
    np.testing.assert_allclose(theta[:, 15:], np.tile(one, (len(odd), 1))[:, 15:], rtol=1e-5)


def test_transform_batch_takes_the_dispersions_of_that_batch(half_gated):
    rows = half_gated.module.log_theta.detach().exp().numpy()
    for code, name in enumerate(("even", "odd")):
        theta = _thetas(half_gated, transform_batch=code)
        np.testing.assert_allclose(theta[:, :15], np.tile(rows[code], (len(theta), 1))[:, :15], rtol=1e-5)
        sample = half_gated.posterior_predictive_sample(given_counts=False, transform_batch=name)[:, :15]
        sample = sample.toarray() if hasattr(sample, "toarray") else np.asarray(sample)
        assert (sample.var(0).mean() > 40) == (name == "odd")  # of counts of mean 8: in truth 11 and 99


def test_batches_have_dispersions_of_their_own_unless_asked_for_one():
    adata = _two_dispersions(60)
    SCGACL.setup_anndata(adata)
    assert SCGACL(adata, gene_likelihood="nb", **SMALL).module.log_theta.shape == (30,)
    SCGACL.setup_anndata(adata, batch_key="batch")
    for likelihood in ("normal", "zinb"):
        assert SCGACL(adata, gene_likelihood=likelihood, **SMALL).module.log_theta.shape == (30,)
    assert SCGACL(adata, gene_likelihood="nb", dispersion="gene", **SMALL).module.log_theta.shape == (30,)
    model = SCGACL(adata, gene_likelihood="nb", **SMALL)
    assert model.module.log_theta.shape == (2, 30)
    assert model.init_params_["non_kwargs"]["dispersion"] == "gene-batch"  # a query of one batch has it, too


def test_dispersions_are_drawn_to_those_of_the_gene_and_these_to_the_mean_of_all():
    """Against automatic differentiation of the sums of squares."""
    adata = _two_dispersions(60)
    SCGACL.setup_anndata(adata, batch_key="batch")
    for dispersion in ("gene", "gene-batch"):
        module = SCGACL(adata, gene_likelihood="nb", dispersion=dispersion, **SMALL).module
        torch.nn.init.normal_(module.log_theta, generator=torch.Generator().manual_seed(0))
        rows = torch.atleast_2d(module.log_theta)
        of_gene = rows.mean(0)
        penalty = (of_gene - of_gene.mean()).square().sum() + (rows - of_gene).square().sum()
        [expected] = torch.autograd.grad(0.5 * penalty, module.log_theta)
        module.log_theta.grad = torch.zeros_like(module.log_theta)
        module.add_prior_gradients(0.0, 0.5)
        torch.testing.assert_close(module.log_theta.grad, expected)


def test_dispersions_that_cannot_be_are_refused():
    adata = _two_dispersions(60)
    SCGACL.setup_anndata(adata, batch_key="batch")
    with pytest.raises(ValueError, match=r"dispersion='gene-cell'.*choose one of"):
        SCGACL(adata, dispersion="gene-cell")
    with pytest.raises(ValueError, match="needs a count likelihood"):
        SCGACL(adata, dispersion="gene-batch", gene_likelihood="normal")


@pytest.mark.parametrize("encoded", [False, True])
def test_the_encoder_sees_batches_and_covariates_only_where_asked_to(encoded):
    adata = _null_with_batches(1.0)
    adata.obs["number"] = np.linspace(-1, 1, adata.n_obs)
    SCGACL.setup_anndata(adata, batch_key="batch", continuous_covariate_keys=["number"])
    model = SCGACL(adata, gene_likelihood="nb", encode_covariates=encoded, **SMALL)
    model.train(max_epochs=3, enable_progress_bar=False)
    latent = model.get_latent_representation()
    other = adata.copy()
    other.obs["batch"] = np.where(adata.obs["batch"] == "one", "two", "one")
    other.obs["number"] = -adata.obs["number"]
    assert np.array_equal(model.get_latent_representation(other), latent) != encoded
    moved = [model.get_imputed_expression(data, policy="denoise", layer_key=None) for data in (adata, other)]
    assert not np.allclose(*moved)  # the generator sees them in either case
