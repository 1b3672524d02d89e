from types import SimpleNamespace

import numpy as np
import pytest
import scvi
import torch
from scipy import stats
from scvi import REGISTRY_KEYS

from scgacl_scvi import SCGACL
from scgacl_scvi._keys import HELDOUT_GROUP, STRATUM
from scgacl_scvi.datasets import simulate_null
from scgacl_scvi.evaluate import null_correlation
from scgacl_scvi.module import VaDE
from scgacl_scvi.module._gate import GeneGate
from scgacl_scvi.module._groups import N_HELDOUT_GROUPS
from scgacl_scvi.train import _gate_fit
from scgacl_scvi.train._gate_fit import MIN_EVIDENCE, WEIGHTS, _heldout_log_ratios, _set_weights, cell_weight, fit_gate

K = 3


def _stub(cells: int, genes: int, spread: float, inflated: bool, seed: int = 0) -> tuple[SimpleNamespace, dict]:
    """A gate with means, and what a generator that knows nothing of them says of some cells."""
    rng = torch.Generator().manual_seed(seed)
    gate = GeneGate(K, genes)
    gate.log_mean.copy_(torch.randn(genes, generator=rng))
    gate.cluster_log_ratio.copy_(spread * torch.randn(K, genes, generator=rng))
    module = SimpleNamespace(
        gate=gate, theta=torch.rand(genes, generator=rng) * 4 + 0.5, gene_group=torch.arange(genes) % 10
    )
    own = {
        "log_scale": gate.log_mean + 0.4 + spread * torch.randn(cells, genes, generator=rng),
        "responsibilities": torch.softmax(2 * torch.randn(cells, K, generator=rng), 1),
        "depth": torch.rand(cells, 1, generator=rng) + 0.5,
        "group": torch.arange(cells)[:, None] % 10,
        "zi_logits": torch.randn(cells, genes, generator=rng) - 1 if inflated else None,
        "theta": module.theta,
        "shift": None,
    }
    return module, own


def _draw(module, own: dict, log_ratio: torch.Tensor | float, seed: int) -> torch.Tensor:
    """Counts whose means are the genes' own, times ``exp(log_ratio)``."""
    rng = np.random.default_rng(seed)
    correction = module.gate.depth_correction(own["log_scale"], module.theta)
    rate = (module.gate.log_mean + own["depth"].log() + correction + log_ratio).exp().double().numpy()
    theta = module.theta.double().numpy()
    x = rng.poisson(rng.gamma(theta, rate / theta))
    if own["zi_logits"] is not None:
        x = x * (rng.random(x.shape) >= torch.sigmoid(own["zi_logits"]).numpy())
    return torch.as_tensor(x, dtype=torch.float32)


def test_a_deep_cell_tells_no_more_of_a_mean_than_the_dispersion_allows():
    log_mean, theta = torch.tensor([-5.0, 0.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    log_depth = torch.tensor([[0.0], [-3.0], [4.0], [9.0]])
    weight = cell_weight(log_mean, log_depth, theta).double()
    mean, depth, theta = log_mean.double().exp(), log_depth.double().exp(), theta.double()
    # The inverse variance of count / depth, the count being negative binomial, to that at depth 1, by molecule.
    information = depth**2 / (mean * depth + (mean * depth) ** 2 / theta)
    expected = information / (1 / (mean + mean**2 / theta)) / depth
    torch.testing.assert_close(weight, expected, rtol=1e-5, atol=0)
    assert (weight[0] == 1).all()


@pytest.mark.parametrize("groups", [{"n_batch": 2}, {"n_strata": 2}, {}])
def test_no_depth_is_left_in_common_when_genes_are_judged(groups, monkeypatch):
    torch.manual_seed(0)
    cells, genes = 60, 30
    module = VaDE(genes, n_hidden=(8,), n_hidden_discriminator=(8,), n_latent=3, n_components=2, gene_likelihood="nb",
                  dropout_rate=0.0, **groups)  # fmt: skip
    x = torch.poisson(torch.full((cells, genes), 2.0) * torch.rand(1, genes) * 3)
    module.set_data_statistics(x.sum(1).median(), x.numpy().mean(0), x.max().item())
    module.decoder.output.weight.data.mul_(20)
    module.decoder.output.bias.data.add_(torch.randn(genes))  # shares that are not those of the data
    module.gene_group.copy_(torch.arange(genes) % N_HELDOUT_GROUPS)
    batch = {REGISTRY_KEYS.X_KEY: x, REGISTRY_KEYS.BATCH_KEY: torch.arange(cells)[:, None] % groups.get("n_batch", 1)}
    if "n_strata" in groups:
        batch[STRATUM] = torch.arange(cells)[:, None] % 2
    held = {**batch, HELDOUT_GROUP: (torch.arange(cells)[:, None] * 3) % N_HELDOUT_GROUPS}
    found = []
    real = _gate_fit._heldout_log_ratios

    def watched(module, x, own):
        found.append(module.gate.depth_correction(own["log_scale"], module.theta).mean().item())
        return real(module, x, own)

    monkeypatch.setattr(_gate_fit, "_heldout_log_ratios", watched)
    fit_gate(module, lambda: [held], lambda: [held], lambda: [batch])
    assert len(found) == 2
    assert abs(module.gate.depth_offset) > 0.05
    # Not to the bit: the usual shares, by which a library is estimated beside genes that are kept back, have moved.
    assert found == pytest.approx([0, 0], abs=0.01)


def test_weights_begin_with_the_genes_own_mean_and_share_out_at_most_one():
    assert WEIGHTS[0] == (0.0, 0.0)
    assert {(1.0, 0.0), (0.0, 1.0)} < set(WEIGHTS)
    assert all(min(w) >= 0 and sum(w) <= 1 for w in WEIGHTS)


@pytest.mark.parametrize("inflated", [False, True])
def test_likelihood_ratios_are_those_of_the_held_out_entries(inflated):
    cells, genes = 13, 24
    module, own = _stub(cells, genes, 0.7, inflated)
    x = _draw(module, own, 0.0, seed=1)
    found = _heldout_log_ratios(module, x, own).numpy()

    gate, theta = module.gate, module.theta.double().numpy()
    mean, scale = gate.log_mean.double().exp().numpy(), own["log_scale"].double().exp().numpy()
    correction = gate.depth_correction(own["log_scale"], module.theta).double().exp().numpy()
    cluster = np.exp(own["responsibilities"].double().numpy() @ gate.cluster_log_ratio.double().numpy())
    rates = [
        own["depth"].numpy() * correction * mean * cluster**a * (scale / correction / mean) ** b for a, b in WEIGHTS
    ]
    log_p = []
    for rate in rates:
        pmf = stats.nbinom.pmf(x.numpy(), theta, theta / (theta + rate))
        if inflated:
            p = torch.sigmoid(own["zi_logits"]).double().numpy()
            pmf = p * (x.numpy() == 0) + (1 - p) * pmf
        log_p.append(np.log(pmf))
    expected = np.zeros((len(WEIGHTS), genes))
    for n in range(cells):
        for g in range(genes):
            if n % 10 == g % 10:
                expected[:, g] += [by_mixture[n, g] - log_p[0][n, g] for by_mixture in log_p]
    np.testing.assert_allclose(found, expected, atol=5e-4)
    assert np.abs(expected[1:]).min() > 0


@pytest.mark.parametrize("inflated", [False, True])
def test_evidence_is_an_e_value_where_the_genes_own_mean_is_right(inflated):
    module, own = _stub(30, 8000, 0.35, inflated)
    _set_weights(module.gate, _heldout_log_ratios(module, _draw(module, own, 0.0, seed=2), own).T)
    evidence = module.gate.evidence.double().exp().numpy()
    error = evidence.std() / np.sqrt(len(evidence))
    assert error < 0.02
    assert abs(evidence.mean() - 1) < 4 * error
    assert (module.gate.evidence >= MIN_EVIDENCE).float().mean() < np.exp(-MIN_EVIDENCE)
    closed = module.gate.evidence < MIN_EVIDENCE
    assert (module.gate.weight_generator[closed] == 0).all()
    assert (module.gate.weight_cluster[closed] == 0).all()


def test_evidence_grows_where_the_generator_is_right():
    module, own = _stub(400, 200, 0.8, False)
    correction, _, generator = module.gate.ratios(own["log_scale"], own["responsibilities"], module.theta)
    _set_weights(module.gate, _heldout_log_ratios(module, _draw(module, own, generator, seed=3), own).T)
    assert (module.gate.evidence >= MIN_EVIDENCE).float().mean() > 0.8
    assert module.gate.weight_generator.mean() > 2 * module.gate.weight_cluster.mean()


def test_unseen_cells_open_a_gate_but_do_not_choose_its_weights():
    gate = GeneGate(K, 3)
    ratios = torch.zeros(3, len(WEIGHTS), dtype=torch.float64)
    ratios[:, 2] = torch.tensor([1.0, 40.0, 0.0])  # the cluster's mean; the first gene's evidence is too little alone
    unseen = torch.zeros_like(ratios)
    unseen[:, 6] = torch.tensor([20.0, 20.0, -5.0])  # the generator's
    _set_weights(gate, ratios, unseen)
    assert (gate.evidence[:2] > MIN_EVIDENCE).all()
    assert gate.evidence[2] < MIN_EVIDENCE
    np.testing.assert_allclose(gate.weight_cluster[:2], 1, atol=0.1)
    np.testing.assert_allclose(gate.weight_generator[:2], 0, atol=0.1)
    _set_weights(gate, ratios)
    assert gate.evidence[0] < MIN_EVIDENCE


def test_weights_are_those_of_the_mixture_that_held_out_entries_prefer():
    gate = GeneGate(K, len(WEIGHTS) + 1)
    ratios = torch.zeros(gate.log_mean.numel(), len(WEIGHTS), dtype=torch.float64)
    for g in range(1, len(WEIGHTS)):
        ratios[g, g] = 40.0  # each gene another mixture; the first gene none
    ratios[-1, 1:] = 0.9 * MIN_EVIDENCE
    _set_weights(gate, ratios)
    expected = torch.tensor([*WEIGHTS, WEIGHTS[0]])
    torch.testing.assert_close(torch.stack([gate.weight_cluster, gate.weight_generator], 1), expected)
    mean_ratio = np.log(np.exp(ratios[:, 1:].numpy()).mean(1))
    np.testing.assert_allclose(gate.evidence.numpy(), mean_ratio, rtol=1e-5, atol=1e-6)


def test_genes_learn_from_one_another_which_mixture_is_usual():
    gate = GeneGate(K, 41)
    ratios = torch.zeros(41, len(WEIGHTS), dtype=torch.float64)
    cluster, generator = WEIGHTS.index((1.0, 0.0)), WEIGHTS.index((0.0, 1.0))
    ratios[:40, cluster] = 30.0
    ratios[40, [cluster, generator]] = 10.0  # its own entries do not tell the two apart
    _set_weights(gate, ratios)
    assert gate.weight_cluster[40] > 0.9


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_evidence_rests_on_means_that_have_not_seen_the_held_out_entries(likelihood):
    torch.manual_seed(0)
    cells, genes = 50, 20
    module = VaDE(genes, n_hidden=(8,), n_hidden_discriminator=(8,), n_latent=3, n_components=K,
                  gene_likelihood=likelihood)  # fmt: skip
    x = torch.poisson(torch.full((cells, genes), 2.0))
    module.set_data_statistics(x.sum(1).median(), x.numpy().mean(0), x.max().item())
    module.prior.initialise(torch.randn(K, 3), torch.ones(K, 3), torch.full((K,), 1 / K))
    module.gene_group.copy_(torch.arange(genes) % N_HELDOUT_GROUPS)
    start = {key: value.clone() for key, value in module.gate.state_dict().items()}
    group = torch.arange(cells)[:, None] % N_HELDOUT_GROUPS
    held_out = group == module.gene_group

    def fitted(x: torch.Tensor) -> tuple[dict, dict]:
        module.gate.load_state_dict(start)
        batch = {REGISTRY_KEYS.X_KEY: x, REGISTRY_KEYS.BATCH_KEY: torch.zeros(cells, 1, dtype=torch.int64)}
        seen = []

        def spy(module, x, own):
            seen.append({key: value.clone() for key, value in module.gate.state_dict().items()})
            return _heldout_log_ratios(module, x, own)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_gate_fit, "_heldout_log_ratios", spy)
            fit_gate(module, lambda: [{**batch, HELDOUT_GROUP: group}], list, lambda: [batch])
        return seen[0], module.gate.state_dict() | {}

    reference, after = fitted(x)
    after = {key: value.clone() for key, value in after.items()}
    other, other_after = fitted(torch.where(held_out, x + 30, x))
    assert not torch.equal(reference["log_mean"], start["log_mean"])
    for key in ("log_mean", "cluster_log_ratio"):
        assert torch.equal(reference[key], other[key])
        assert not torch.equal(after[key], other_after[key])  # the means that are kept know all entries
    assert not torch.equal(after["evidence"], other_after["evidence"])
    assert after["fitted"]


# --- on data whose genes are independent -----------------------------------------------------------------------

FAST = {"pretrain_epochs": 15, "vade_epochs": 10, "joint_epochs": 4, "pretrain_lr": 5e-3, "vade_lr": 5e-3}
SMALL = {"n_latent": 4, "n_hidden": 32, "n_hidden_discriminator": 16}


def _null_fit(gene_likelihood: str, gate_genes: bool | None) -> SCGACL:
    before, scvi.settings._seed = scvi.settings._seed, 0
    adata = simulate_null(400, 80, seed=0)
    SCGACL.setup_anndata(adata)
    model = SCGACL(adata, gene_likelihood=gene_likelihood, **SMALL)
    model.train(**FAST, batch_size=32, gate_genes=gate_genes, enable_progress_bar=False)
    scvi.settings._seed = before
    return model


@pytest.fixture(scope="module")
def gated() -> SCGACL:
    return _null_fit("nb", None)


def _denoised(model: SCGACL) -> np.ndarray:
    return model.get_imputed_expression(policy="denoise", return_numpy=True)


def _passing(model: SCGACL) -> np.ndarray:
    return model.module.gate.evidence.numpy() >= MIN_EVIDENCE


def _check_genes(model: SCGACL) -> None:
    differential = model.adata.var["differential"].to_numpy()
    passing = _passing(model)
    assert passing[differential].mean() > 0.75
    assert passing[~differential].sum() <= 1


def test_differential_genes_pass_and_independent_ones_keep_their_mean(gated):
    _check_genes(gated)


def test_the_gate_takes_invented_correlation_away_and_leaves_the_true_one(gated):
    differential = gated.adata.var["differential"]
    with_gate = null_correlation(_denoised(gated), differential)
    without = null_correlation(_denoised(_null_fit("nb", False)), differential)
    assert without.false_share > 0.1
    assert with_gate.false_share < 0.01
    assert with_gate.true_share > 0.7


def test_a_zero_of_a_gated_gene_has_one_value_in_all_cells_of_whatever_depth(gated):
    values, zero = _denoised(gated), gated.adata.X.toarray() == 0
    gate, passing = gated.module.gate, _passing(gated)
    assert (gate.weight_cluster.numpy()[~passing] == 0).all()
    assert (gate.weight_generator.numpy()[~passing] == 0).all()
    for gene in np.flatnonzero(zero.sum(0) > 50):
        assert (np.ptp(values[zero[:, gene], gene]) > 1e-6) == passing[gene]


def test_a_model_with_dropout_gates_the_same_way():
    model = _null_fit("zinb", None)
    _check_genes(model)
    assert null_correlation(_denoised(model), model.adata.var["differential"]).false_share < 0.01


def test_the_gate_survives_saving_to_the_bit_and_so_does_which_entries_were_kept_back(gated, tmp_path):
    gated.save(tmp_path / "model", overwrite=True, save_anndata=False)
    scvi.settings._seed = 5
    loaded = SCGACL.load(tmp_path / "model", adata=gated.adata)
    saved, found = gated.module.state_dict(), loaded.module.state_dict()
    names = [name for name in saved if name.startswith("gate.") or name == "gene_group"]
    assert len(names) == 14
    for name in names:
        assert found[name].numpy().tobytes() == saved[name].numpy().tobytes(), name
    assert found["gate.fitted"]
    np.testing.assert_array_equal(_denoised(loaded), _denoised(gated))
    assert loaded.heldout_seed_ == gated.heldout_seed_
    assert torch.equal(loaded.module.gene_group, saved["gene_group"])
