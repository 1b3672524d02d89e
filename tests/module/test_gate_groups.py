"""Means of genes in batches and strata, against data drawn from such means."""

import numpy as np
import pytest
import torch

from scgacl_scvi.module._gate import GateSums, GeneGate
from scgacl_scvi.module._gate_groups import GroupSums

K, GENES = 3, 40


def _draw(n_batch: int, n_strata: int, n_cells: int = 6000, seed: int = 0):
    """Counts whose log mean is a gene's, plus a shift of its stratum, batch and cluster; types differ by batch."""
    rng = np.random.default_rng(seed)
    stratum, batch = np.arange(n_cells) % n_strata, rng.integers(0, n_batch, n_cells)
    within = rng.random(n_cells) < np.where(batch == 0, 0.8, 0.2)  # batch 0 has most cells of cluster 0
    cluster = np.where(within, 0, 1 + rng.integers(0, K - 1, n_cells))
    shifts = {
        "stratum": rng.normal(0, 0.5, (n_strata, GENES)),
        "batch": rng.normal(0, 0.5, (n_batch, GENES)),
        "cluster": rng.normal(0, 1.0, (n_strata * K, GENES)),
    }
    component = stratum * K + cluster
    log_mean = 2.5 + shifts["stratum"][stratum] + shifts["batch"][batch] + shifts["cluster"][component]
    depth = rng.uniform(0.5, 2, n_cells)
    x = rng.poisson(depth[:, None] * np.exp(log_mean))
    tensors = (torch.as_tensor(v, dtype=torch.float32) for v in (x, depth[:, None]))
    return *tensors, torch.as_tensor(batch), torch.as_tensor(stratum), torch.as_tensor(component), log_mean


def _fit(x, depth, batch, component, n_batch, n_strata, supported=None, size: int = 1000, correction=None) -> GeneGate:
    gate = GeneGate(n_strata * K, GENES, n_batch, n_strata)
    sums = GroupSums(gate)
    members = torch.nn.functional.one_hot(component, n_strata * K).float()
    for rows in torch.arange(len(x)).split(size):
        corrected = torch.zeros(len(rows), 1) if correction is None else correction[rows]
        part = (x[rows], depth[rows], corrected, torch.ones_like(x[rows]), members[rows], batch[rows])
        sums.add(*part)
    sums.store(gate, supported)
    return gate


@pytest.mark.parametrize(("n_batch", "n_strata"), [(3, 1), (1, 2), (2, 2)])
def test_means_of_batches_strata_and_clusters_multiply_to_the_truth(n_batch, n_strata):
    x, depth, batch, stratum, component, truth = _draw(n_batch, n_strata)
    gate = _fit(x, depth, batch, component, n_batch, n_strata)
    found = gate.log_mean + gate.cluster_log_ratio[component] + gate.shift(batch, stratum if n_strata > 1 else None)
    np.testing.assert_allclose(found.numpy(), truth, atol=0.1)


def test_a_batch_with_many_cells_of_a_type_is_not_taken_for_one_with_high_markers():
    x, depth, batch, _, component, _ = _draw(2, 1)
    x = torch.poisson(depth * (2.0 + component[:, None].eq(0) * 20.0).expand_as(x))  # types differ, batches do not
    gate = _fit(x, depth, batch, component, 2, 1)
    raw = [float((x[batch == b].sum(0) / depth[batch == b].sum()).mean()) for b in (0, 1)]
    assert raw[0] > 2 * raw[1]
    assert gate.batch_log_ratio.abs().max() < 0.1


def test_genes_without_support_have_one_mean_in_all_batches():
    x, depth, batch, _, component, _ = _draw(3, 1)
    supported = torch.arange(GENES) % 2 == 0
    gate = _fit(x, depth, batch, component, 3, 1, supported)
    assert (gate.batch_log_ratio[:, ~supported] == 0).all()
    assert (gate.batch_log_ratio[:, supported] != 0).all()


def test_a_stratum_borrows_nothing_of_another():
    x, depth, batch, stratum, component, _ = _draw(1, 2)
    other = torch.where(stratum[:, None] == 1, torch.poisson(torch.full_like(x, 50.0)), x)
    found = []
    for counts in (x, other):
        gate = _fit(counts, depth, batch, component, 1, 2)
        found.append((gate.log_mean + gate.stratum_log_ratio[0], gate.cluster_log_ratio[:K]))
    torch.testing.assert_close(*found, atol=1e-3, rtol=0)


def test_a_gene_that_a_stratum_does_not_show_stays_finite():
    x, depth, batch, stratum, component, _ = _draw(2, 2)
    x[stratum == 1, 0] = 0
    x[batch == 1, 1] = 0
    gate = _fit(x, depth, batch, component, 2, 2)
    for ratios in (gate.stratum_log_ratio, gate.batch_log_ratio, gate.cluster_log_ratio):
        assert torch.isfinite(ratios).all()
    assert gate.stratum_log_ratio[1, 0] < -5


def test_one_batch_and_stratum_are_the_sums_of_the_plain_gate():
    x, depth, batch, _, component, _ = _draw(1, 1, n_cells=300)
    correction = 0.3 * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(0)) + 0.5
    gate = _fit(x, depth, batch, component, 1, 1, correction=correction)
    plain = GeneGate(K, GENES)
    sums = GateSums(plain)
    members = torch.nn.functional.one_hot(component, K).float()
    sums.add(x, depth, correction, torch.ones_like(x), members)
    sums.store(plain)
    assert plain.depth_offset.item() == pytest.approx(correction.mean().item(), abs=1e-5)
    for key in ("log_mean", "cluster_log_ratio", "depth_offset", "composition"):
        torch.testing.assert_close(getattr(gate, key), getattr(plain, key), rtol=1e-5, atol=1e-6)
    assert gate.shift(batch) is None


def test_storing_the_same_sums_twice_moves_depths_once():
    x, depth, batch, _, component, _ = _draw(2, 1, n_cells=300)
    gate = GeneGate(K, GENES, 2, 1)
    gate.depth_offset.fill_(0.1)
    sums, members = GroupSums(gate), torch.nn.functional.one_hot(component, K).float()
    sums.add(x, depth, torch.full((300, 1), 0.4), torch.ones_like(x), members, batch)
    sums.store(gate)
    sums.store(gate, torch.zeros(GENES, dtype=torch.bool))
    assert gate.depth_offset.item() == pytest.approx(0.5, abs=1e-4)
