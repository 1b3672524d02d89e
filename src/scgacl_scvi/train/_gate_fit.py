"""Fit of the gate of each gene, on entries that training did not see so far."""

from collections.abc import Callable, Iterable
from itertools import chain

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import HELDOUT_GROUP, MISSING_GENES
from scgacl_scvi.module import VaDE
from scgacl_scvi.module._at_mean import at_posterior_mean
from scgacl_scvi.module._gate import GateSums, counted_share
from scgacl_scvi.module._gate_groups import GroupSums
from scgacl_scvi.module._likelihoods import entry_log_prob
from scgacl_scvi.module._nonzeros import Nonzeros

MIN_EVIDENCE = 1.5
"""Nats by which held-out counts have to prefer the richer means. Under a gene's own mean, the chance of so much is at
most exp(-1.5) by Markov's inequality; in simulations it was 0 to 3 %, and 2 to 5 % with a limit of 1 nat."""

# Log-ratio of the mixed mean to the gene's: a x cluster + b x (generator - cluster), or b x generator for a = 0. The
# generator in full is the end of both lines, and counts twice in the average.
GRID = ((0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 0.25), (1.0, 0.5), (1.0, 0.75), (1.0, 1.0), (0.0, 1.0), (0.0, 0.5))
WEIGHTS = tuple((a - b if a else 0.0, b) for a, b in GRID)
"""The same as weights of the cluster's and of the generator's log-ratio; the first is the gene's own mean."""

_EM_STEPS = 300


@torch.no_grad()
def fit_gate(
    module: VaDE,
    heldout_batches: Callable[[], Iterable],
    unseen_batches: Callable[[], Iterable],
    all_batches: Callable[[], Iterable],
) -> None:
    """Choose for each gene how far its mean follows cluster and generator.

    For each gene, the log-likelihood of the held-out entries under each mixture of :data:`WEIGHTS`, less that under the
    gene's own mean. Their likelihood ratios averaged over the mixtures are an e-value: at most 1 in expectation if the
    gene's own mean is right, whatever the generator is. Where its logarithm is below :data:`MIN_EVIDENCE` the gene
    keeps its own mean. (With batches its own mean is first that of each batch, where held-out entries prefer that in
    the same way.) Other genes share a distribution of weights, learnt by EM over genes (empirical Bayes), and each
    gets its posterior mean of the weights.

    Parameters
    ----------
    module
        The trained module with a count likelihood.
    heldout_batches
        Makes an iterator over training cells with their held-out group; the means are those of their visible entries.
    unseen_batches
        Makes one over cells that training did not see at all, each once with each group held out. They count when genes
        are judged. How far those that pass follow cluster and generator is chosen by training cells: later, all are.
    all_batches
        Makes one over the training cells with nothing held out.
    """
    training = module.training
    module.eval()
    gate = module.gate
    gate.fitted.fill_(False)
    sums = gate_sums(module, heldout_batches())
    sums.store(gate)
    if isinstance(sums, GroupSums):
        sums.store(gate, batch_evidence(module, chain(heldout_batches(), unseen_batches())) >= MIN_EVIDENCE)
    ratios = log_ratios(module, heldout_batches())
    unseen = log_ratios(module, unseen_batches())
    refresh_gate(module, all_batches)
    _set_weights(gate, ratios, unseen)
    gate.fitted.fill_(True)
    module.train(training)


@torch.no_grad()
def refresh_gate(module: VaDE, all_batches: Callable[[], Iterable]) -> None:
    """Set the gate's means of genes, batches and clusters for the module as it is now; what was chosen stays.

    Parameters
    ----------
    module
        The module, trained further since :func:`fit_gate`.
    all_batches
        As there.
    """
    training = module.training
    module.eval()
    gate = module.gate
    sums = gate_sums(module, all_batches())
    if isinstance(sums, GroupSums):
        sums.store(gate, (gate.batch_log_ratio != 0).any(0))  # a gene that has one mean in all batches has factors of 1
    else:
        sums.store(gate)
    module.train(training)


def _passes(module: VaDE, batches: Iterable):
    """Counts of each batch, and what the module makes of what it may see of them."""
    for tensors, inferred in at_posterior_mean(module, batches):
        own = module.generative(**module._get_generative_input(tensors, inferred))
        own["responsibilities"] = module.responsibilities(inferred["z"], tensors)
        own["batch"], own["shift"] = tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1), module.gate_shift(tensors)
        own["log_scale"] = own["scale"].clamp_min(1e-9).log()
        own["depth"] = inferred["library"] / module.median_library
        own["visible"], own["group"] = inferred["visible"], tensors.get(HELDOUT_GROUP)
        own["measured"] = ~tensors.get(MISSING_GENES, ~module.gene_seen)
        yield tensors[REGISTRY_KEYS.X_KEY], own


def gate_sums(module: VaDE, batches: Iterable) -> GateSums | GroupSums:
    """Sums over the visible entries, from which the gate's means follow."""
    grouped = len(module.gate.batch_log_ratio) > 1 or module.n_strata > 1
    sums = GroupSums(module.gate) if grouped else GateSums(module.gate)
    for x, own in _passes(module, batches):
        correction = module.gate.depth_correction(own["log_scale"], module.theta)
        counted = counted_share(x, own["rate"], own["theta"], own["zi_logits"], own["visible"])
        counted = counted * cell_weight(module.gate.log_mean, own["depth"].log() + correction, own["theta"])
        groups = (own["batch"],) if grouped else ()
        sums.add(x, own["depth"], correction, counted, own["responsibilities"], *groups)
    return sums


def cell_weight(log_mean: Tensor, log_depth: Tensor, theta: Tensor) -> Tensor:
    """What a cell (its depth, cells x 1) tells about a gene's mean for each molecule expected in it, cells x genes.

    No cell tells more than the gene's inverse dispersion allows, however deep it is. A cell of the reference depth has
    weight 1, so that sums are still in molecules, as the pseudocounts are that they are drawn by.
    """
    return (1 + log_mean.exp() / theta) / (1 + (log_mean + log_depth).exp() / theta)


def batch_evidence(module: VaDE, batches: Iterable, first: int = 0) -> Tensor:
    """Nats by which the held-out entries prefer the gene's mean in each batch to its mean over all, genes.

    The ratio of two likelihoods given means that have not seen these entries, so exp of it is an e-value, too. Only
    batches from number ``first`` on count.
    """
    gate = module.gate
    total = torch.zeros(len(gate.log_mean), dtype=torch.float64, device=module.device)
    if len(gate.batch_log_ratio) == 1:
        return total
    for x, own in _passes(module, batches):
        log_depth = own["depth"].log() + gate.depth_correction(own["log_scale"], module.theta)
        of_batch = gate.batch_log_ratio[own["batch"]] * (own["batch"] >= first)[:, None]
        for at, genes in _heldout_blocks(module, own):
            theta, zi_logits = _at(own, "theta", at, genes), _at(own, "zi_logits", at, genes)
            base = (gate.log_mean + log_depth + own["shift"])[at]
            with_batch = entry_log_prob(x[at], base.exp(), theta, zi_logits)
            without = entry_log_prob(x[at], (base - of_batch[at]).exp(), theta, zi_logits)
            total[genes] += ((with_batch - without) * own["measured"].expand_as(x)[at]).sum(0)
    return total


def _heldout_blocks(module: VaDE, own: dict):
    """Index of each block of cells x genes that is held out in a batch, and its genes."""
    for group in own["group"].unique():
        rows = torch.nonzero(own["group"].squeeze(-1) == group)
        genes = torch.nonzero(module.gene_group == group).squeeze(-1)
        yield (rows, genes), genes


def _at(own: dict, key: str, at: tuple[Tensor, Tensor], genes: Tensor) -> Tensor | None:
    """Entries of a parameter (genes, cells x genes or None) in a block."""
    values = own[key]
    return None if values is None else values[genes] if values.ndim == 1 else values[at]


def log_ratios(module: VaDE, batches: Iterable) -> Tensor:
    """Log-likelihood of the held-out entries under each mixture, less that under the gene's mean, genes x mixtures."""
    total = torch.zeros(len(WEIGHTS), len(module.gate.log_mean), dtype=torch.float64, device=module.device)
    for x, own in _passes(module, batches):
        total += _heldout_log_ratios(module, x, own)
    return total.T


def _heldout_log_ratios(module: VaDE, x: Tensor, own: dict) -> Tensor:
    """Sum over cells of the log-likelihood ratios of the held-out entries, mixtures x genes."""
    gate, shift = module.gate, own["shift"]
    correction, cluster, generator = gate.ratios(own["log_scale"], own["responsibilities"], module.theta, shift)
    log_base = gate.log_mean + (own["depth"].log() + correction)
    log_base = log_base if shift is None else log_base + shift
    total = torch.zeros(len(WEIGHTS), x.shape[1], dtype=torch.float64, device=x.device)
    for at, genes in _heldout_blocks(module, own):
        theta, zi_logits = _at(own, "theta", at, genes), _at(own, "zi_logits", at, genes)
        counts, base, by_cluster, by_generator = x[at], log_base[at], cluster[at], generator[at]
        nonzeros = Nonzeros(counts)
        for total_of, (of_cluster, of_generator) in zip(total, WEIGHTS, strict=True):
            rate = (base + of_cluster * by_cluster + of_generator * by_generator).exp()
            total_of[genes] += entry_log_prob(counts, rate, theta, zi_logits, nonzeros).sum(0)
    return total - total[0]


def _set_weights(gate, ratios: Tensor, unseen: Tensor | float = 0.0) -> None:
    """Evidence and weights of each gene from its log-likelihood ratios, genes x mixtures.

    ``unseen`` are those in cells that training did not see: they are evidence, but do not choose weights.
    """
    richer = ratios[:, 1:]
    n = richer.shape[1]
    evidence = torch.logsumexp((ratios + unseen)[:, 1:], 1) - torch.log(torch.tensor(float(n)))
    passed = evidence.to(gate.evidence) >= MIN_EVIDENCE  # in the precision in which it is kept and reported
    log_prior = torch.full((n,), 1.0 / n, dtype=ratios.dtype, device=ratios.device).log()
    for _ in range(_EM_STEPS if passed.any() else 0):
        log_prior = (torch.softmax(richer[passed] + log_prior, 1).mean(0) + 1e-8).log()
    posterior = torch.softmax(richer + log_prior, 1) * passed[:, None]
    weights = posterior @ torch.tensor(WEIGHTS[1:], dtype=ratios.dtype, device=ratios.device)
    gate.evidence.copy_(evidence)
    gate.weight_cluster.copy_(weights[:, 0])
    gate.weight_generator.copy_(weights[:, 1])
