import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scvi import REGISTRY_KEYS

from scgacl_scvi._keys import HELDOUT_GROUP
from scgacl_scvi.module import VaDE
from scgacl_scvi.module._gate import GateSums, GeneGate, counted_share
from scgacl_scvi.module._groups import N_HELDOUT_GROUPS

CELLS, GENES, K = 9, 14, 3


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _case(seed: int = 0, genes: int = GENES) -> tuple[GeneGate, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A gate with means of genes and clusters; a generator's means, responsibilities and inverse dispersions."""
    rng = _rng(seed)
    gate = GeneGate(K, genes)
    gate.log_mean.copy_(torch.randn(genes, generator=rng) * 2)
    gate.depth_reference.copy_(gate.log_mean + torch.randn(genes, generator=rng))
    gate.depth_offset.fill_(0.3)
    gate.cluster_log_ratio.copy_(torch.randn(K, genes, generator=rng))
    scale = (gate.log_mean + torch.randn(CELLS, genes, generator=rng)).exp()
    responsibilities = torch.softmax(3 * torch.randn(CELLS, K, generator=rng), 1)
    return gate, scale, responsibilities, torch.randn(genes, generator=rng).exp()


# --- the depth correction --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_depth_correction_is_the_weighted_median_of_the_log_ratios(seed):
    gate, scale, _, theta = _case(seed)
    mean = gate.depth_reference.double().exp().numpy()
    weight = mean / (1 + mean / theta.double().numpy())
    ratio = np.log(scale.double().numpy()) - np.log(mean)
    found = gate.depth_correction(scale.log(), theta).numpy()
    assert found.shape == (CELLS, 1)
    # The weighted median is where the weighted sum of absolute deviations is lowest.
    deviation = (weight * np.abs(ratio[:, None, :] - ratio[:, :, None])).sum(-1)
    lowest = np.take_along_axis(ratio, deviation.argmin(1)[:, None], 1)
    np.testing.assert_allclose(found, lowest - 0.3, atol=1e-5)


def test_depth_is_judged_by_the_best_measured_genes():
    gate, scale, _, theta = _case(genes=700)
    weight = gate.depth_reference.exp() / (1 + gate.depth_reference.exp() / theta)
    best = weight >= weight.sort().values[-500]
    moved = torch.where(best, scale, scale * 1e3)
    torch.testing.assert_close(
        gate.depth_correction(moved.log(), theta), gate.depth_correction(scale.log(), theta), rtol=0, atol=0
    )
    moved = torch.where(best, scale * 1e3, scale)
    assert (gate.depth_correction(moved.log(), theta) > gate.depth_correction(scale.log(), theta) + 6).all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.floats(-5, 5, width=32), min_size=CELLS, max_size=CELLS),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_factor_of_all_means_of_a_cell_moves_its_depth_and_no_gene(seed, log_factors, of_cluster, of_generator):
    gate, scale, responsibilities, theta = _case(seed)
    gate.weight_cluster.fill_(of_cluster)
    gate.weight_generator.fill_(of_generator)
    log_factor = torch.tensor(log_factors)[:, None]
    mean, correction = gate(scale, responsibilities, theta)
    moved_mean, moved_correction = gate(scale * log_factor.exp(), responsibilities, theta)
    torch.testing.assert_close(moved_correction.log(), correction.log() + log_factor, rtol=0, atol=1e-4)
    torch.testing.assert_close(moved_mean, mean, rtol=2e-4, atol=0)


# --- the mixture of means --------------------------------------------------------------------------------------


def test_a_closed_gate_gives_every_cell_the_genes_mean_whatever_the_generator_says():
    gate, scale, responsibilities, theta = _case()
    scale[0, 0], scale[1, 1] = 0.0, 1e30
    gate.weight_generator.zero_()
    mean, _ = gate(scale, responsibilities, theta)
    assert torch.equal(mean, gate.log_mean.exp().expand(CELLS, GENES))


def test_an_open_gate_gives_the_generators_mean_less_the_cells_depth():
    gate, scale, responsibilities, theta = _case()
    mean, correction = gate(scale, responsibilities, theta)
    assert correction.shape == (CELLS, 1)
    torch.testing.assert_close(mean * correction, scale, rtol=1e-5, atol=0)
    assert (correction.log().abs() > 0.01).any()


def test_a_gate_open_for_clusters_gives_a_member_its_clusters_mean():
    gate, scale, _, theta = _case()
    gate.weight_generator.zero_()
    gate.weight_cluster.fill_(1.0)
    cluster = torch.arange(CELLS) % K
    mean, _ = gate(scale, torch.nn.functional.one_hot(cluster, K).float(), theta)
    torch.testing.assert_close(mean, (gate.log_mean + gate.cluster_log_ratio[cluster]).exp(), rtol=1e-5, atol=0)


def test_each_gene_has_its_own_weights():
    gate, scale, responsibilities, theta = _case()
    gate.weight_generator[::2] = 0
    mean, correction = gate(scale, responsibilities, theta)
    assert torch.equal(mean[:, ::2], gate.log_mean.exp()[::2].expand(CELLS, -1))
    torch.testing.assert_close(mean[:, 1::2], (scale / correction)[:, 1::2], rtol=1e-5, atol=0)


# --- means of genes and clusters -------------------------------------------------------------------------------


def _cells(seed: int = 0):
    rng = _rng(seed)
    x = torch.poisson(torch.full((CELLS, GENES), 3.0), generator=rng)
    depth = torch.rand(CELLS, 1, generator=rng) + 0.3
    correction = torch.randn(CELLS, 1, generator=rng)
    counted = torch.rand(CELLS, GENES, generator=rng)
    responsibilities = torch.softmax(2 * torch.randn(CELLS, K, generator=rng), 1)
    return x, depth, correction, counted, responsibilities


def _stored(cells: tuple, batch_size: int) -> GeneGate:
    gate = GeneGate(K, GENES)
    sums = GateSums(gate)
    for start in range(0, CELLS, batch_size):
        sums.add(*(value[start : start + batch_size] for value in cells))
    sums.store(gate)
    return gate


@pytest.mark.parametrize("batch_size", [1, 4, CELLS])
def test_means_are_ratios_of_sums_in_any_batches(batch_size):
    cells = _cells()
    gate = _stored(cells, batch_size)
    x, depth, correction, counted, responsibilities = (value.double().numpy() for value in cells)
    for g in range(GENES):
        molecules = sum(x[n, g] * counted[n, g] for n in range(CELLS))
        exposure = sum(depth[n, 0] * np.exp(correction[n, 0]) * counted[n, g] for n in range(CELLS))
        mean = molecules / exposure
        assert gate.log_mean[g].item() == pytest.approx(np.log(mean) + correction.mean(), abs=1e-5)
        for k in range(K):
            share = responsibilities[:, k] * counted[:, g]
            drawn = (share @ x[:, g] + 1) / (share @ (depth * np.exp(correction))[:, 0] + 1 / mean)
            assert gate.cluster_log_ratio[k, g].item() == pytest.approx(np.log(drawn / mean), abs=1e-5)


def test_what_depth_corrections_have_in_common_is_no_matter_of_depth():
    cells = _cells()
    x, depth, correction, counted, _ = (value.double() for value in cells)
    gate = _stored(cells, CELLS)
    assert gate.depth_offset.item() == pytest.approx(correction.mean().item(), abs=1e-6)
    # Genes that keep their own mean are expected as often as they were seen, at the cells' corrected depths.
    expected = gate.log_mean.double().exp() * depth * (correction - gate.depth_offset).exp()
    torch.testing.assert_close((expected * counted).sum(0), (x * counted).sum(0), rtol=1e-5, atol=0)


def test_genes_follow_the_composition_of_their_cluster_as_far_as_they_follow_the_cluster():
    n, size, share = 200, 50, -0.4  # cells, cells of the first cluster, and its mean correction
    correction = torch.zeros(n, 1)
    correction[:size] = share
    responsibilities = torch.eye(K)[(torch.arange(n) >= size).long()]
    x, ones = torch.full((n, GENES), 3.0), torch.ones(n, 1)
    follows, ignores = (GeneGate(K, GENES, follow_composition=value) for value in (True, False))
    for gate in (follows, ignores):
        sums = GateSums(gate)
        sums.add(x, ones, correction, torch.ones_like(x), responsibilities)
        sums.store(gate)
        gate.weight_generator.copy_(torch.tensor([0.0, 0.5, 1.0]).repeat(5)[:GENES])
        gate.weight_cluster.copy_(torch.tensor([0.0, 0.25, 0.0]).repeat(5)[:GENES])
    mean = torch.rand(n, GENES) + 1
    assert torch.equal(ignores.at_reference_depth(mean, responsibilities), mean)
    found = (follows.at_reference_depth(mean, responsibilities) / mean).log()
    average = share * size / n
    expected = torch.where(torch.arange(n) < size, (share - average) * size / (size + 1), -average * 150 / 151)[:, None]
    assert (found[:, ::3] == 0).all()
    torch.testing.assert_close(found[:, 1::3], (0.75 * expected).expand(-1, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 2::3], expected.expand(-1, 4), rtol=0, atol=1e-5)
    assert follows.composition[2] == 0  # a cluster without cells


def test_a_cluster_without_cells_has_the_genes_means_and_an_unseen_gene_stays_finite():
    x, depth, correction, counted, responsibilities = _cells()
    responsibilities = responsibilities.clone()
    responsibilities[:, 1] = 0
    x[:, 2] = 0
    counted[:, 3] = 0
    gate = _stored((x, depth, correction, counted, responsibilities), CELLS)
    seen = torch.arange(GENES) != 2
    torch.testing.assert_close(gate.cluster_log_ratio[1, seen], torch.zeros(GENES - 1), rtol=0, atol=1e-6)
    assert torch.isfinite(gate.log_mean).all()
    assert torch.isfinite(gate.cluster_log_ratio).all()


def test_the_weight_of_a_zero_is_the_probability_that_it_is_no_dropout():
    rng = _rng(1)
    x = torch.poisson(torch.full((CELLS, GENES), 0.7), generator=rng)
    rate, theta = torch.rand(CELLS, GENES, generator=rng) * 3, torch.rand(GENES, generator=rng) + 0.2
    logits = torch.randn(CELLS, GENES, generator=rng)
    visible = torch.rand(CELLS, GENES, generator=rng) < 0.7
    found = counted_share(x, rate, theta, logits, visible).numpy()
    r, t, p = (value.double().numpy() for value in (rate, theta, torch.sigmoid(logits)))
    zero = stats.nbinom(t, t / (t + r)).pmf(0)
    expected = np.where(x.numpy() > 0, 1.0, (1 - p) * zero / (p + (1 - p) * zero)) * visible.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert torch.equal(counted_share(x, rate, theta, None, visible), visible.float())
    assert torch.equal(counted_share(x, rate, theta, None, None), torch.ones_like(x))


def test_the_mean_of_zero_inflated_counts_is_that_before_dropout():
    rng, n = np.random.default_rng(0), 20_000
    depth = rng.lognormal(0, 0.4, (n, 1))
    mean, theta, p = np.array([0.5, 4.0]), np.array([2.0, 1.0]), np.array([0.5, 0.3])
    x = rng.poisson(rng.gamma(theta, depth * mean / theta)) * (rng.random((n, 2)) >= p)
    x, depth, mean, theta, p = (torch.as_tensor(v, dtype=torch.float32) for v in (x, depth, mean, theta, p))
    counted = counted_share(x, depth * mean, theta, torch.logit(p).expand_as(x), None)
    gate = GeneGate(1, 2)
    sums = GateSums(gate)
    sums.add(x, depth, torch.zeros(n, 1), counted, torch.ones(n, 1))
    sums.store(gate)
    torch.testing.assert_close(gate.log_mean.exp(), mean, rtol=0.04, atol=0)  # 3 standard errors


# --- in the module ---------------------------------------------------------------------------------------------


def _module(likelihood: str) -> tuple[VaDE, dict]:
    torch.manual_seed(0)
    rng = _rng(2)
    module = VaDE(GENES, n_batch=2, n_hidden=(8,), n_hidden_discriminator=(8,), n_latent=3, n_components=K,
                  gene_likelihood=likelihood, dropout_rate=0.0)  # fmt: skip
    x = torch.poisson(torch.full((CELLS, GENES), 4.0), generator=rng)
    module.set_data_statistics(x.sum(1).median(), x.numpy().mean(0), x.max().item())
    module.prior.initialise(torch.randn(K, 3, generator=rng), torch.ones(K, 3), torch.full((K,), 1 / K))
    module.gene_group.copy_(torch.arange(GENES) % N_HELDOUT_GROUPS)
    batch = {
        REGISTRY_KEYS.X_KEY: x,
        REGISTRY_KEYS.BATCH_KEY: torch.arange(CELLS)[:, None] % 2,
        HELDOUT_GROUP: (torch.arange(CELLS)[:, None] * 3) % N_HELDOUT_GROUPS,
    }
    return module, batch


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_held_out_entries_change_no_bit_of_latents_loss_and_gradients(likelihood):
    module, batch = _module(likelihood)
    held_out = module.gene_group[None] == batch[HELDOUT_GROUP]
    assert torch.equal(module.visible(batch), (~held_out).float())
    assert 0 < held_out.sum() < held_out.numel() / 5
    x = batch[REGISTRY_KEYS.X_KEY]

    def trained_on(x: torch.Tensor) -> tuple[dict, dict]:
        torch.manual_seed(1)
        tensors = {**batch, REGISTRY_KEYS.X_KEY: x}
        module.zero_grad()
        inferred, _, losses = module(tensors)
        losses.loss.backward()
        found = {key: inferred[key] for key in ("profile", "library", "z")} | {"loss": losses.loss}
        return found, {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}

    reference, gradients = trained_on(x)
    assert gradients["log_theta"].abs().sum() > 0
    for other in (torch.where(held_out, 0.0, x), torch.where(held_out, x + 1000, x)):
        found, others = trained_on(other)
        for key, value in reference.items():
            assert torch.equal(found[key], value), key
        for name, value in gradients.items():
            assert torch.equal(others[name], value), name
    found, _ = trained_on(torch.where(held_out, x, x + 1))  # what is seen does matter
    assert not torch.equal(found["z"], reference["z"])


def test_the_library_of_a_cell_that_keeps_genes_back_is_estimated_by_their_usual_share():
    module, batch = _module("nb")
    x, visible = batch[REGISTRY_KEYS.X_KEY], module.visible(batch)
    mean = x.numpy().mean(0)
    shown = visible.numpy()
    expected = (x.numpy() * shown).sum(1) / ((mean * shown).sum(1) / mean.sum())
    total, seen = (values.sum(-1, keepdim=True) for values in (x, x * visible))
    np.testing.assert_allclose(module.library(seen, visible=visible)[:, 0].numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(module.library(total)[:, 0].numpy(), x.numpy().sum(1))
    sizes = torch.rand(CELLS, 1) + 0.5
    torch.testing.assert_close(module.library(total, sizes, visible), sizes * module.median_library)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_predict_is_the_generator_until_the_gate_is_fitted_and_keeps_each_cells_depth_after(likelihood):
    module, batch = _module(likelihood)
    del batch[HELDOUT_GROUP]
    module.eval()
    module.decoder.output.weight.data.mul_(5)  # a generator that has learnt something
    with torch.no_grad():
        inferred = module.encode(**module._get_inference_input(batch))
        inferred["z"] = inferred["qz"].loc
        own = module.generative(**module._get_generative_input(batch, inferred))
        unfitted = module.predict(batch, inferred)
        module.gate.fitted.fill_(True)
        opened = module.predict(batch, inferred)
        module.gate.weight_generator.zero_()
        closed = module.predict(batch, inferred)
    for key in ("scale", "rate"):
        assert torch.equal(unfitted[key], own[key])
    torch.testing.assert_close(opened["rate"], own["rate"], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(opened["scale"], own["scale"], rtol=1e-4)
    assert torch.equal(closed["scale"], module.gate.log_mean.exp().expand(CELLS, GENES))
    depth = (closed["rate"] / closed["scale"]).numpy()
    np.testing.assert_allclose(depth, np.broadcast_to(depth[:, :1], depth.shape), rtol=1e-5)
    torch.testing.assert_close(closed["rate"] / closed["scale"], opened["rate"] / opened["scale"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_priors_pull_every_loading_to_zero_and_dispersions_to_their_mean(likelihood):
    module, _ = _module(likelihood)
    module.log_theta.data = torch.randn(GENES, generator=_rng(3)) + 5
    loadings = [module.decoder.output.weight, *([module.decoder.zi.weight] if likelihood == "zinb" else [])]
    parameters = [*loadings, module.log_theta]
    centred = module.log_theta - module.log_theta.mean().detach()  # the mean is drawn nowhere
    penalty = 3.0 * sum(weight.square().sum() for weight in loadings) + 0.5 * centred.square().sum()
    expected = torch.autograd.grad(penalty, parameters)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.add_prior_gradients(3.0, 0.5)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, 1 + gradient)
    others = {*module.parameters()} - {*parameters}
    assert all((parameter.grad == 1).all() for parameter in others)


def test_priors_leave_frozen_parameters_alone():
    module, _ = _module("nb")
    module.add_prior_gradients(3.0, 0.5)
    assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.parametrize("likelihood", ["nb", "zinb"])
def test_composition_moves_values_at_the_reference_depth_only_and_no_gene_of_its_own_mean(likelihood):
    module, batch = _module(likelihood)
    del batch[HELDOUT_GROUP]
    module.eval()
    module.gate.fitted.fill_(True)
    module.gate.weight_generator[::2] = 0
    with torch.no_grad():
        inferred = module.encode(**module._get_inference_input(batch))
        inferred["z"] = inferred["qz"].loc
        before = module.predict(batch, inferred)
        module.gate.composition.fill_(-0.7)
        after = module.predict(batch, inferred)
    assert torch.equal(after["rate"], before["rate"])
    assert torch.equal(after["scale"][:, ::2], before["scale"][:, ::2])
    factor = np.exp(-0.7) if likelihood == "nb" else 1.0
    torch.testing.assert_close(after["scale"][:, 1::2], factor * before["scale"][:, 1::2])


def test_a_reset_gate_is_that_of_the_data():
    module, batch = _module("nb")
    before = {key: value.clone() for key, value in module.gate.state_dict().items()}
    sums = GateSums(module.gate)
    x = batch[REGISTRY_KEYS.X_KEY]
    sums.add(x, torch.ones(CELLS, 1), torch.rand(CELLS, 1), torch.ones_like(x), torch.full((CELLS, K), 1 / K))
    sums.store(module.gate)
    assert module.gate.depth_offset > 0
    module.gate.reset()
    for key in ("log_mean", "depth_reference", "depth_offset", "composition"):
        assert torch.equal(module.gate.state_dict()[key], before[key]), key
