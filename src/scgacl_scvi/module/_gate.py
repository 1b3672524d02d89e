"""A gate for each gene: how much of what the generator says of it stands up to counts that it had not seen.

A generator explains part of the noise by its latent space, and its means then correlate genes that have nothing in
common. The gate mixes three means of rising complexity, on the log scale: the gene's own, that of the cell's cluster,
and the generator's. A gene for which held-out counts do not speak for more than its own mean gets exactly that mean.
"""

import torch
from torch import Tensor, nn

from ._posterior import dropout_probability

_TINY = 1e-9
_PSEUDOCOUNT = 1.0
"""Molecules by which a cluster's mean is drawn to the gene's."""
_DEPTH_GENES = 500
"""Genes by which a cell's depth is judged; the median of the best-measured ones is as good as that of all."""


class GeneGate(nn.Module):
    """Means of genes and clusters, and the weights by which they mix with the generator's mean.

    Everything is a buffer: weights are chosen before the joint phase (:func:`~scgacl_scvi.train._gate_fit.fit_gate`),
    means are taken anew after it. Until then, or where it was not asked for, the gate is open.

    Parameters
    ----------
    n_components
        Largest number of components of the prior, K.
    n_genes
        Number of genes.
    n_batch, n_strata
        Number of batches and strata, in which the gene's own mean may differ.
    follow_composition
        Whether :meth:`at_reference_depth` allows for what a cluster's strongest genes leave of a library to others.
    """

    def __init__(
        self, n_components: int, n_genes: int, n_batch: int = 1, n_strata: int = 1, follow_composition: bool = True
    ):
        super().__init__()
        self.follow_composition = follow_composition
        self.register_buffer("fitted", torch.tensor(False))
        # Log of the gene's mean at the reference depth (counts); that of the data until the gate is fitted.
        self.register_buffer("log_mean", torch.zeros(n_genes))
        # What the depth correction compares with, log mean of each gene in the data (with "zinb" after dropout, whose
        # common part the average takes off), and that average over cells.
        self.register_buffer("depth_reference", torch.zeros(n_genes))
        self.register_buffer("depth_offset", torch.tensor(0.0))
        self.register_buffer("composition", torch.zeros(n_components))  # log factor of all genes in a cluster
        self.register_buffer("cluster_log_ratio", torch.zeros(n_components, n_genes))  # K x genes, to the gene's mean
        self.register_buffer("batch_log_ratio", torch.zeros(n_batch, n_genes))  # to the gene's mean; 0: not borne out
        self.register_buffer("stratum_log_ratio", torch.zeros(n_strata, n_genes))
        # Of the mixed mean at the reference depth, to that of a stratum's counts.
        self.register_buffer("stratum_log_factor", torch.zeros(n_strata, n_genes))
        self.register_buffer("weight_cluster", torch.zeros(n_genes))
        self.register_buffer("weight_generator", torch.ones(n_genes))
        self.register_buffer("evidence", torch.full((n_genes,), torch.nan))
        # Of the inverse dispersion around the mixed mean, to the module's around the generator's.
        self.register_buffer("log_theta_ratio", torch.zeros(n_genes))

    @torch.no_grad()
    def reset(self) -> None:
        """Open the gate, as before its fit: means are those of the data."""
        self.fitted.fill_(False)
        self.log_mean.copy_(self.depth_reference)
        self.depth_offset.zero_()
        self.composition.zero_()
        self.batch_log_ratio.zero_()
        self.stratum_log_ratio.zero_()
        self.stratum_log_factor.zero_()
        self.weight_cluster.zero_()
        self.weight_generator.fill_(1.0)
        self.evidence.fill_(torch.nan)
        self.log_theta_ratio.zero_()

    @property
    def keeps_own_mean(self) -> Tensor:
        """Which genes follow neither cluster nor generator (bool, genes)."""
        return (self.weight_cluster == 0) & (self.weight_generator == 0)

    def depth_correction(self, log_scale: Tensor, theta: Tensor) -> Tensor:
        """Log of the factor that all genes of a cell share in the generator's mean, cells x 1.

        The library is a noisy measure of depth: a few strong genes, or dropout, move it, and with it every other gene's
        share. The generator learns to correct that. It is a property of the cell's depth, not of any gene, and must
        not correlate genes. Weighted median over genes of the log-ratio to the gene's mean in the data, less its
        average over cells.
        """
        mean = self.depth_reference.exp()
        weight = mean / (1 + mean / theta)  # information on the log mean in one cell
        genes = weight.topk(min(_DEPTH_GENES, len(weight))).indices
        ratio = log_scale[:, genes] - self.depth_reference[genes]
        order = ratio.argsort(1)
        share = weight[genes].expand_as(ratio).gather(1, order).cumsum(1)
        middle = (share < share[:, -1:] / 2).sum(1, keepdim=True)
        return ratio.gather(1, order.gather(1, middle)) - self.depth_offset

    def shift(self, batch: Tensor, strata: Tensor | None = None) -> Tensor | None:
        """Log-ratio of a gene's mean in the cells' batches and strata (codes, cells) to its mean; None without any."""
        by_batch = self.batch_log_ratio[batch] if len(self.batch_log_ratio) > 1 else None
        by_stratum = None if strata is None else self.stratum_log_ratio[strata]
        if by_batch is None or by_stratum is None:
            return by_stratum if by_batch is None else by_batch
        return by_batch + by_stratum

    def ratios(
        self, log_scale: Tensor, responsibilities: Tensor, theta: Tensor, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Depth correction (cells x 1), and log-ratios of the cluster's and of the generator's mean to the gene's."""
        correction = self.depth_correction(log_scale, theta)
        generator = log_scale - self.log_mean - correction
        return correction, responsibilities @ self.cluster_log_ratio, generator if shift is None else generator - shift

    def forward(
        self, scale: Tensor, responsibilities: Tensor, theta: Tensor, shift: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mix the means.

        Parameters
        ----------
        scale
            The generator's mean at the reference depth (counts), cells x genes.
        responsibilities
            Probability of each cluster, cells x K.
        theta
            Inverse dispersion, genes.
        shift
            Of :meth:`shift`.

        Returns
        -------
        The mixed mean at the reference depth (counts), cells x genes, free of the cell's depth correction; and the
        factor of that correction, cells x 1, by which the mean at the cell's own depth is larger.
        """
        correction, cluster, generator = self.ratios(scale.clamp_min(_TINY).log(), responsibilities, theta, shift)
        mixed = self.log_mean + self.weight_cluster * cluster + self.weight_generator * generator
        mixed = mixed if shift is None else mixed + shift
        return mixed.exp(), correction.exp()

    def at_reference_depth(self, mixed: Tensor, responsibilities: Tensor) -> Tensor:
        """The mixed mean as a share of a library of the reference depth (counts), cells x genes.

        Where a few strong genes fill a cluster's libraries, the counts of all others are lower there at equal depth,
        and so is the mean of a gene as far as it follows cluster or generator. One that keeps its own mean keeps it
        here, too: a factor of all genes, however small, would correlate those that have nothing in common.
        """
        if not self.follow_composition:
            return mixed
        followed = self.weight_cluster + self.weight_generator
        return mixed * (followed * (responsibilities @ self.composition)[:, None]).exp()


class DepthSums:
    """Number of cells and sum of their depth corrections, over all cells and over those of each cluster (1 + K)."""

    def __init__(self, gate: GeneGate):
        size = len(gate.composition) + 1
        self._n_cells, self._correction = (
            torch.zeros(size, dtype=torch.float64, device=gate.log_mean.device) for _ in "nc"
        )
        self._offset = gate.depth_offset.clone()  # with which the corrections are made

    def add(self, correction: Tensor, responsibilities: Tensor) -> Tensor:
        """Add cells: log of the correction (cells x 1), responsibilities. Returns their membership, 1 + K x cells."""
        members = torch.cat([torch.ones_like(correction), responsibilities], 1).T
        self._n_cells += members.sum(1)
        self._correction += (members @ correction).squeeze(1)
        return members

    @torch.no_grad()
    def store(self, gate: GeneGate) -> Tensor:
        """Set the gate's offset and composition, and return the average that corrections lose by it.

        From here on corrections are relative to the average over cells: what they have in common is no matter of a
        cell's depth but of the means, and a gene that keeps its own mean would be predicted too low by it.
        """
        average = self._correction[0] / self._n_cells[0]
        gate.depth_offset.copy_(self._offset + average)
        if gate.follow_composition:
            off = self._correction[1:] - self._n_cells[1:] * self._correction[0] / self._n_cells[0]
            gate.composition.copy_(off / (self._n_cells[1:] + 1))  # drawn to 0 by a cell
        return average


class GateSums:
    """Sums over cells from which the means of genes and clusters follow."""

    def __init__(self, gate: GeneGate):
        k, g = gate.cluster_log_ratio.shape
        self._x, self._depth = (torch.zeros(k + 1, g, dtype=torch.float64, device=gate.log_mean.device) for _ in "xd")
        self._depths = DepthSums(gate)

    def add(self, x: Tensor, depth: Tensor, correction: Tensor, counted: Tensor, responsibilities: Tensor) -> None:
        """Add cells: counts, depth and log of its correction (cells x 1), weight of each entry, responsibilities."""
        members = self._depths.add(correction, responsibilities)
        self._x += members @ (x * counted)
        self._depth += members @ (depth * correction.exp() * counted)

    def store(self, gate: GeneGate) -> None:
        """Set the gate's means."""
        mean = (self._x[0] / self._depth[0].clamp_min(_TINY)).clamp_min(_TINY)
        cluster = (self._x[1:] + _PSEUDOCOUNT) / (self._depth[1:] + _PSEUDOCOUNT / mean)
        gate.log_mean.copy_(mean.log() + self._depths.store(gate))
        gate.cluster_log_ratio.copy_((cluster / mean).log())


def counted_share(x: Tensor, rate: Tensor, theta: Tensor, zi_logits: Tensor | None, visible: Tensor | None) -> Tensor:
    """Weight of each entry in a mean: 0 for what is held out, and for a zero the probability that it is no dropout."""
    weight = torch.ones_like(x) if visible is None else visible.to(x)
    if zi_logits is None:
        return weight
    return weight * torch.where(x > 0, 1.0, 1 - dropout_probability(rate, theta, zi_logits))
