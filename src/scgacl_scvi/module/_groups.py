"""What a batch of cells says beside its counts: labels, strata, batches, and entries that are not to be used."""

import math

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import HELDOUT_GROUP, MISSING_GENES, STRATUM

MAX_LOG_THETA = 9.0  # beyond, lgamma(x + theta) - lgamma(theta) has no correct digit in single precision
N_HELDOUT_GROUPS = 5
"""Genes and cells are dealt into as many groups; a cell keeps the genes of its own group from the first phases."""


class GroupsMixin:
    """Groups of cells of a module, and the parameters that depend on them."""

    def labels(self, tensors: dict[str, Tensor]) -> Tensor | None:
        """Label codes of a batch (``n_labels`` = unlabelled), or None without labels."""
        return tensors[REGISTRY_KEYS.LABELS_KEY].squeeze(-1) if self.n_labels else None

    def strata(self, tensors: dict[str, Tensor]) -> Tensor | None:
        """Stratum codes of a batch, or None without strata."""
        return tensors[STRATUM].squeeze(-1) if self.n_strata > 1 else None

    def batch_codes(self, tensors: dict[str, Tensor], transform_batch: int | None = None) -> Tensor:
        """Codes of the cells' batches, cells x 1; or of another batch, the same for all."""
        own = tensors[REGISTRY_KEYS.BATCH_KEY]
        return own if transform_batch is None else torch.full_like(own, transform_batch)

    def responsibilities(self, z: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Probability of each component given z and the cell's label and stratum, cells x K."""
        return self.prior.responsibilities(z, self.labels(tensors), self.strata(tensors))

    def visible(self, tensors: dict[str, Tensor]) -> Tensor | None:
        """Entries of a batch that may be seen (1, else 0), cells x genes; None for all.

        Not to be seen is what training keeps back, and what was not measured. Numbers, since to multiply by them is
        four times as fast as by a bool.
        """
        group, missing = tensors.get(HELDOUT_GROUP), tensors.get(MISSING_GENES)
        kept = measured = None
        if group is not None:
            groups = torch.arange(N_HELDOUT_GROUPS, dtype=self.gene_group.dtype, device=group.device)
            of_group = (self.gene_group.to(group.device) != groups[:, None]).float()
            kept = of_group.index_select(0, group.squeeze(-1))
        if missing is not None:
            measured = (~missing).float().expand(len(tensors[REGISTRY_KEYS.X_KEY]), -1)
        return kept if measured is None else measured if kept is None else kept * measured

    @property
    def theta(self) -> Tensor:
        """Inverse dispersion of each gene (counts); with ``"gene-batch"`` the geometric mean over training batches."""
        log_theta = self.log_theta.clamp(-5.0, MAX_LOG_THETA)
        return log_theta.exp() if log_theta.ndim == 1 else log_theta[: int(self.n_trained_batches)].mean(0).exp()

    def theta_of(self, batch_index: Tensor) -> Tensor:
        """Inverse dispersion as cells of batches (codes) have it: genes, or cells x genes with ``"gene-batch"``."""
        if self.log_theta.ndim == 1:
            return self.theta
        return self.log_theta[batch_index.squeeze(-1)].clamp(-5.0, MAX_LOG_THETA).exp()

    def gated_theta_of(self, batch_index: Tensor) -> Tensor:
        """As :meth:`theta_of`, around the means of the gate: a gene that keeps its own has one for all batches.

        Means of logs differ between batches by dispersions alone, and genes that have nothing in common would correlate
        through that.
        """
        theta = self.theta_of(batch_index)
        theta = theta if theta.ndim == 1 else torch.where(self.gate.keeps_own_mean, self.theta, theta)
        return (theta * self.gate.log_theta_ratio.exp()).clamp_max(math.exp(MAX_LOG_THETA))

    def gate_shift(self, tensors: dict[str, Tensor], transform_batch: int | None = None) -> Tensor | None:
        """Log-ratio of a gene's mean in the cells' batch and stratum to its mean, cells x genes; None for none."""
        return self.gate.shift(self.batch_codes(tensors, transform_batch).squeeze(-1), self.strata(tensors))
