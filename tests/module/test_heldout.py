"""The held-out metric on a module whose generator is set by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from scgacl_scvi._keys import HELD_OUT
from scgacl_scvi.module import VaDE, heldout_loss, hold_out


def _batch(cells=400, genes=5, seed=0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rate = torch.tensor([1.0, 3.0, 0.5, 8.0, 2.5])[:genes].expand(cells, genes)
    return {
        "X": torch.poisson(rate, generator=generator),
        "batch": torch.zeros(cells, 1, dtype=torch.long),
        "labels": torch.zeros(cells, 1, dtype=torch.long),
    }


def _constant_module(likelihood: str, batch: dict) -> VaDE:
    """A module that generates the same profile for every cell."""
    module = VaDE(5, n_hidden=(4,), n_hidden_discriminator=(4,), n_latent=2, gene_likelihood=likelihood)
    x = batch["X"]
    library = x.sum(1)
    module.set_data_statistics(float(library.median()), (x / library[:, None] * library.median()).mean(0).numpy(), 50.0)
    torch.nn.init.zeros_(module.decoder.output.weight)
    return module.eval()


def _loss(module: VaDE, batch: dict, fraction: float = 0.1, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    held_out = hold_out(batch["X"], fraction, generator, entries=module.gene_likelihood == "normal")
    return heldout_loss(module, {**batch, HELD_OUT: held_out}, fraction)


def test_whole_entries_or_single_molecules_are_held_out():
    x = _batch()["X"]
    molecules, entries = (
        hold_out(x, 0.3, torch.Generator().manual_seed(0), entries=entries) for entries in (False, True)
    )
    assert ((molecules >= 0) & (molecules <= x) & (molecules == molecules.round())).all()
    assert molecules.sum() / x.sum() == pytest.approx(0.3, abs=0.02)
    assert ((entries == 0) | (entries == x)).all()
    assert (entries > 0).sum() / (x > 0).sum() == pytest.approx(0.3, abs=0.05)


def test_it_is_the_gamma_poisson_predictive_density_of_the_thinned_molecules():
    batch = _batch()
    module = _constant_module("nb", batch)
    nats, molecules = _loss(module, batch, 0.2, 5).tolist()
    x = batch["X"]
    test = torch.binomial(x, torch.full_like(x, 0.2), generator=torch.Generator().manual_seed(5)).numpy()
    kept = x.numpy() - test
    frequency = torch.softmax(module.decoder.output.bias, 0).detach().numpy()
    mu = np.maximum(kept.sum(1, keepdims=True), 1) * frequency
    theta = module.theta.detach().numpy()
    mean = 0.25 * (kept + theta) / (mu + theta) * mu
    oracle = -stats.nbinom(kept + theta, (kept + theta) / (kept + theta + mean)).logpmf(test).sum()
    assert nats == pytest.approx(oracle, rel=1e-4)
    assert molecules == test.sum()


@pytest.mark.parametrize("likelihood", ["nb", "zinb", "normal"])
def test_the_same_generator_holds_out_the_same(likelihood):
    batch = _batch()
    module = _constant_module(likelihood, batch)
    a, b, c = (_loss(module, batch, seed=seed) for seed in (1, 1, 2))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(a, c)


def test_knowing_the_gene_means_beats_a_flat_profile():
    batch = _batch()
    module = _constant_module("nb", batch)
    good = _loss(module, batch)[0]
    torch.nn.init.zeros_(module.decoder.output.bias)
    assert good < _loss(module, batch)[0]


def test_a_zero_inflated_model_that_expects_dropout_is_better_on_dropout():
    """Held-out molecules by themselves cannot tell a dropout; the full density can."""
    batch = _batch()
    batch["X"] = batch["X"] * (torch.rand(batch["X"].shape, generator=torch.Generator().manual_seed(3)) > 0.6)
    batch["X"][:, 3] += batch["X"].sum(1) == 0
    module = _constant_module("zinb", batch)
    with torch.no_grad():
        module.log_theta.fill_(3.0)
        module.decoder.output.bias.add_(np.log(1 / 0.4))
    torch.nn.init.zeros_(module.decoder.zi.weight)
    scores = {}
    for share in (0.01, 0.6):
        torch.nn.init.constant_(module.decoder.zi.bias, float(np.log(share / (1 - share))))
        scores[share] = _loss(module, batch)[0].item()
    assert scores[0.6] < scores[0.01]
