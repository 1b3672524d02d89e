"""Means of genes in batches and strata, for the gate of each gene."""

import torch
from torch import Tensor

from ._gate import DepthSums, GeneGate

_PSEUDOCOUNT = 1.0
"""Molecules by which the mean of a batch or a cluster is drawn to what it is compared with."""
_OF_A_STRATUM = 0.1
"""The same for the mean of a stratum, which is to borrow nothing: only a gene that it does not show is moved."""
_SWEEPS = 20
_TINY = 1e-9


class GroupSums:
    """Sums over cells, by batch and component, from which the means of genes, strata, batches and clusters follow.

    The same part in the fit as :class:`~scgacl_scvi.module._gate.GateSums`, which is for one batch and one stratum.
    """

    def __init__(self, gate: GeneGate):
        n_batch, (k, g) = len(gate.batch_log_ratio), gate.cluster_log_ratio.shape
        self.x, self.depth = (
            torch.zeros(n_batch, k, g, dtype=torch.float64, device=gate.log_mean.device) for _ in range(2)
        )
        self._depths = DepthSums(gate)

    def add(
        self, x: Tensor, depth: Tensor, correction: Tensor, counted: Tensor, responsibilities: Tensor, batch: Tensor
    ) -> None:
        """Add cells: as ``GateSums.add``, and the batch of each (cells)."""
        seen, exposure = x * counted, depth * correction.exp() * counted
        for b in batch.unique():
            rows = batch == b
            members = responsibilities[rows].T  # K x cells
            self.x[b] += members @ seen[rows]
            self.depth[b] += members @ exposure[rows]
        self._depths.add(correction, responsibilities)

    def store(self, gate: GeneGate, supported: Tensor | None = None) -> None:
        """Set the gate's means; a gene that is not ``supported`` (genes) has one mean in all batches.

        The mean of a gene is a product: its own, times a factor of the stratum, of the batch and of the cluster. The
        factors of batches and clusters are fitted in turn (iterative proportional fitting), so that a batch with many
        cells of a type is not taken for one in which the type's markers are high.
        """
        n_strata = len(gate.stratum_log_ratio)
        x, depth = self.x.sum(0), self.depth.sum(0)  # K x genes
        mean = (x.sum(0) / depth.sum(0).clamp_min(_TINY)).clamp_min(_TINY)
        x_of, depth_of = (values.reshape(n_strata, -1, values.shape[-1]).sum(1) for values in (x, depth))
        stratum = (x_of + _OF_A_STRATUM) / (depth_of * mean + _OF_A_STRATUM)
        stratum = stratum if n_strata > 1 else torch.ones_like(stratum)
        expected = self.depth * mean * stratum.repeat_interleave(x.shape[0] // n_strata, 0)  # batches x K x genes
        batch = torch.ones(len(self.x), x.shape[-1], dtype=x.dtype, device=x.device)
        several = len(batch) > 1
        for _ in range(_SWEEPS if several else 1):
            cluster = (x + _PSEUDOCOUNT) / ((expected * batch[:, None]).sum(0) + _PSEUDOCOUNT)
            if several:
                batch = (self.x.sum(1) + _PSEUDOCOUNT) / ((expected * cluster).sum(1) + _PSEUDOCOUNT)
                if supported is not None:
                    batch = torch.where(supported, batch, 1.0)
        gate.log_mean.copy_(mean.log() + self._depths.store(gate))
        gate.stratum_log_ratio.copy_(stratum.log())
        gate.batch_log_ratio.copy_(batch.log())
        gate.cluster_log_ratio.copy_(cluster.log())

    def store_new_batches(self, gate: GeneGate, first: int, supported: Tensor | None = None) -> None:
        """Set the gate's means of batches from number ``first`` on, all others being as they are."""
        stratum = gate.stratum_log_ratio.repeat_interleave(self.x.shape[1] // len(gate.stratum_log_ratio), 0)
        expected = self.depth[first:] * (gate.log_mean + stratum + gate.cluster_log_ratio).double().exp()
        batch = (self.x[first:].sum(1) + _PSEUDOCOUNT) / (expected.sum(1) + _PSEUDOCOUNT)
        batch = batch if supported is None else torch.where(supported, batch, 1.0)
        gate.batch_log_ratio[first:] = batch.log().to(gate.batch_log_ratio)
