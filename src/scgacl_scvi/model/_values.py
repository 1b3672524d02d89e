"""From the posterior of a batch to the values a user asked for; tensors only."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import MISSING_GENES
from scgacl_scvi.module import VaDE
from scgacl_scvi.module._nonzeros import positions
from scgacl_scvi.module._posterior import expected_log1p_gamma, posterior_log1p
from scgacl_scvi.scales import CP10K, LOG_SCALES, SCALES, Scale, convert

from ._checks import check_choice

Policy = Literal["impute", "denoise"]
Estimand = Literal["mean", "log"]


@dataclass(frozen=True)
class Request:
    """What the caller wants of each entry.

    Attributes
    ----------
    policy
        ``"impute"``: observed entries kept, zeros with a fill probability of at least ``threshold`` filled, other
        zeros 0. ``"denoise"``: the posterior mean everywhere.
    scale
        ``"lognorm"``: log1p of the expression at the reference depth m; ``"cp10k"``: at 10,000 counts a cell;
        ``"log1p_cp10k"``: its log1p; ``"counts"``: at the cell's own depth.
    estimand
        ``"mean"``: posterior mean of the expression (its log1p on a log scale); ``"log"``: posterior mean of the log1p.
    threshold
        Probability from which a zero is filled; see :func:`default_threshold`.
    depth
        With ``estimand="log"``: of a new count at so many times the cell's own depth, not of the expression.
    """

    policy: Policy = "impute"
    scale: Scale = "lognorm"
    estimand: Estimand = "mean"
    threshold: float = 0.5
    depth: float | None = None

    def __post_init__(self):
        check_choice("policy", self.policy, ("impute", "denoise"))
        check_choice("scale", self.scale, SCALES)
        check_choice("estimand", self.estimand, ("mean", "log"))
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"`threshold={self.threshold}` is no probability; give a value from 0 to 1.")
        if self.estimand == "log" and self.scale not in LOG_SCALES:
            raise ValueError(f"`estimand='log'` needs a log scale ({' or '.join(LOG_SCALES)}), not {self.scale!r}.")
        if self.depth is not None and not 0 < self.depth < float("inf"):
            raise ValueError(f"`depth={self.depth}`; give a number above 0, of times the cell's own depth.")
        if self.depth is not None and (self.estimand, self.policy) != ("log", "denoise"):
            raise ValueError(
                "`depth` is for `estimand='log'` with `policy='denoise'`: the mean of a log depends on how deep one "
                "counts, no other value does."
            )

    def check_against(self, module: VaDE) -> None:
        """Raise where the model cannot give what is asked for."""
        if module.input_scale == "lognorm" and self.scale != "lognorm":
            raise ValueError(
                f"`scale={self.scale!r}`, but the model was registered with `input_scale='lognorm'`: counts are not "
                "known. Only `scale='lognorm'` is left."
            )
        if module.gene_likelihood == "normal" and self.estimand == "log":
            raise ValueError("`estimand='log'` needs a count likelihood ('nb' or 'zinb'); this model's is 'normal'.")
        if self.depth is not None and module.gene_likelihood == "zinb":
            raise ValueError(
                "`depth` needs `gene_likelihood='nb'`: with 'zinb' a new count could be lost to dropout again, which "
                "is a property of the experiment, not of the cell."
            )


TRUE_ZERO_COST = 0.1
"""``"zinb"``, ``policy="impute"``: squared error at a zero that hides nothing, against that at a dropout. Chosen on two
simulations: at 0 the dropouts are best and true zeros are filled as if each were one, at 1 all entries together are."""


def default_threshold(module: VaDE) -> float:
    """Probability from which a zero is filled where the user says nothing.

    ``"zinb"``: .05. What is filled in is drawn towards 0 by the probability that the zero hides nothing
    (:data:`TRUE_ZERO_COST`), so little is lost by filling. Other likelihoods: .5, the published one.
    """
    return 0.05 if module.gene_likelihood == "zinb" else 0.5


def posterior_values(
    module: VaDE, tensors: dict[str, Tensor], noise: Tensor | None, request: Request, batches: list[int | None]
) -> Tensor:
    """Values of a batch of cells.

    Parameters
    ----------
    module
        The trained module, in evaluation mode.
    tensors
        A batch of cells.
    noise
        Standard-normal draws, samples x cells x latent; None for z at its posterior mean.
    request
        What to return.
    batches
        Codes of the batches to average over; ``[None]`` for the cell's own.

    Returns
    -------
    One value for each sample (or one), cell and gene.
    """
    tensors = {key: value.to(module.device) for key, value in tensors.items()}
    inferred = module.encode(**module._get_inference_input(tensors))
    qz = inferred["qz"]
    x, profile, library = tensors[REGISTRY_KEYS.X_KEY], inferred["profile"], inferred["library"]
    depth = library / module.median_library
    if module.input_scale == "lognorm":
        observed = profile
    else:
        observed = convert(x, "counts", request.scale, library=library, median_library=float(module.median_library))
    values = []
    for draw in [None] if noise is None else noise.to(module.device):
        z = qz.loc if draw is None else qz.loc + qz.scale * draw
        estimate, filled = _estimate(module, tensors, {**inferred, "z": z}, depth, request, batches)
        estimate = torch.where(module.gene_seen, estimate, observed)  # the model knows nothing of other genes
        if filled is not None:
            estimate = torch.where(x > 0, observed, torch.where(filled, estimate, 0.0))
        values.append(estimate)
    return torch.stack(values)


def _estimate(module, tensors, inferred, depth, request, batches) -> tuple[Tensor, Tensor | None]:
    """Value of each entry as if unobserved zeros were all filled, and which are (None for ``policy="denoise"``)."""
    own = module.predict(tensors, inferred)
    x, missing = tensors[REGISTRY_KEYS.X_KEY], tensors.get(MISSING_GENES)
    filled, curve = None, module.dropout_curve
    if request.policy == "impute":
        p_hidden = None if curve is None else fill_probability(module, tensors, inferred, own)
        filled = zeros_to_fill(module, tensors, inferred, own, request.threshold, p_hidden)
        if missing is not None:  # what was not measured is no zero: nothing speaks against the gene's mean
            filled |= missing
    if module.gene_likelihood == "normal":
        means = [own if b is None else module.predict(tensors, inferred, b) for b in batches]
        mean = torch.stack([generated["scale"] for generated in means]).mean(0)
        return _from_lognorm(mean, depth, module, request.scale), filled

    if filled is not None and curve is not None:
        value = _from_lognorm(_lost_count(module, own, p_hidden), depth, module, request.scale)
        if missing is None:
            return value, filled
        expression, _ = _estimate(module, tensors, inferred, depth, replace(request, policy="denoise"), batches)
        return torch.where(missing, expression, value), filled

    # Shrinking at one depth for all cells: equal evidence gives equal values, and no library size enters.
    at_own = request.scale == "counts" or request.depth is not None  # a new count is one of this cell, as it was read
    seen, mean = (x, own["rate"]) if at_own else (x / depth, own["scale"])
    factor = float(CP10K / module.median_library) if request.scale == "log1p_cp10k" else 1.0
    factor = factor if request.depth is None else factor / depth
    unit = None if request.depth is None else factor / request.depth
    estimates = []
    for batch in batches:
        # Another batch's mean, with what the cell's own count said about it in its own batch.
        other = 1.0 if batch is None else module.predict(tensors, inferred, batch)["scale"] / own["scale"]
        if request.estimand == "log":
            estimates.append(_log_estimate(module, seen, mean, own["theta"], factor, other, missing, unit))
        else:
            estimates.append(expected(module, seen, mean, own["theta"], missing, filled) * other)
    estimate = torch.stack(estimates).mean(0)
    if request.estimand == "log" or request.scale == "counts":
        return estimate, filled
    return _from_lognorm(torch.log1p(estimate), depth, module, request.scale), filled


def _lost_count(module: VaDE, own: dict, p_hidden: Tensor) -> Tensor:
    """What is filled in where a zero may hide a count that dropout took, on the lognorm scale.

    The value v that minimises ``P (t - v)^2 + c (1 - P) v^2``, with t the lost count (lognorm), P the probability that
    there was one, and c = :data:`TRUE_ZERO_COST`: the mean of t times ``P / (P + c (1 - P))``. One value on all scales,
    whatever the estimand, which speaks of the expression.
    """
    weight = p_hidden / (p_hidden + TRUE_ZERO_COST * (1 - p_hidden)).clamp_min(1e-12)
    return weight * module.dropout_curve.hidden_log1p(own["scale"])


def fill_probability(module: VaDE, tensors: dict[str, Tensor], inferred: dict, own: dict) -> Tensor:
    """Probability by which ``policy="impute"`` decides on a zero, cells x genes; of no meaning elsewhere.

    ``"zinb"``: that dropout hid a count. ``"nb"``: that the cell, sequenced once more at depth m, would show the gene.
    ``"normal"``: the published mixture's.
    """
    if module.gene_likelihood == "normal":
        return module.zero_dropout[module.dropout_classes(inferred, tensors)]
    if module.gene_likelihood == "zinb":
        return module.dropout_curve.hidden_probability(own["rate"])
    return _shown_again(module, inferred, own)


def _shown_again(module: VaDE, inferred: dict, own: dict, index: Tensor | None = None) -> Tensor:
    depth = inferred["library"] / module.median_library
    return module.residual.shown_again(own["scale"] * depth, own["scale"], own["theta"], index)


def zeros_to_fill(
    module: VaDE, tensors: dict[str, Tensor], inferred: dict, own: dict, threshold: float, p_fill: Tensor | None = None
) -> Tensor:
    """Zeros whose :func:`fill_probability` (``p_fill``, where it is known) reaches a threshold; bool, cells x genes."""
    zero = tensors[REGISTRY_KEYS.X_KEY] == 0
    if module.gene_likelihood != "nb":
        return zero & ((fill_probability(module, tensors, inferred, own) if p_fill is None else p_fill) >= threshold)
    # A zero only makes the expression smaller, and to show a gene is at most as likely as if its expression were sure.
    # Few of the means are large enough, and the others need no posterior. (.999: room for rounding.)
    enough = -0.999 * math.log1p(-min(threshold, 1 - 1e-6))
    index = positions(zero & (own["scale"] * module.residual.mean_ratio >= enough))
    probability = _shown_again(module, inferred, own, index)
    filled = torch.zeros(zero.shape, dtype=torch.bool, device=zero.device)
    filled.view(-1).index_copy_(0, index, probability >= threshold)
    return filled


def expected(
    module: VaDE,
    x: Tensor,
    mean: Tensor,
    theta: Tensor,
    missing: Tensor | None = None,
    zeros: Tensor | None = None,
) -> Tensor:
    """Posterior mean of the expression, at the depth of ``x`` and of the generator's ``mean`` (counts).

    Of ``missing`` genes (1 x genes) that were not measured, the prior mean. ``zeros`` (bool) are the only entries that
    matter, if given; others are 0.
    """
    if zeros is None:
        _, value = module.residual.posterior(x, mean, theta)
    else:
        index, value = positions(zeros), torch.zeros(mean.shape, dtype=mean.dtype, device=mean.device)
        value.view(-1).index_copy_(0, index, module.residual.behind_zeros(mean, theta, index)[1])
    if module.dropout_curve is not None:
        value = torch.where(x > 0, value, module.dropout_curve.zero_mean(mean))
    return value if missing is None else torch.where(missing, before_dropout(module, mean, theta)[0], value)


def before_dropout(module: VaDE, mean: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and inverse dispersion of an expression of which no count is known, dropout accounted for."""
    return (mean, theta) if module.dropout_curve is None else module.dropout_curve.corrected(mean)


def _log_estimate(
    module: VaDE,
    x: Tensor,
    mean: Tensor,
    theta: Tensor,
    factor: Tensor | float,
    other: Tensor | float,
    missing: Tensor | None,
    unit: Tensor | None,
) -> Tensor:
    """Posterior mean of ``log(1 + factor * other * expression)``, or of a new count in units of ``unit``."""
    shape, expression = module.residual.posterior(x, mean, theta)
    value = expected_log1p_gamma(shape, factor * other * expression, unit)
    if module.dropout_curve is not None:
        zero = torch.expm1(module.dropout_curve.zero_log1p(mean, factor))
        value = torch.where(x > 0, value, torch.log1p(zero * other))  # exact without another batch
    if missing is None:
        return value
    prior_mean, prior_theta = before_dropout(module, mean, theta)
    certain = torch.ones(())  # a "dropout" for certain is an entry of which nothing is known
    return torch.where(
        missing,
        posterior_log1p(torch.zeros_like(x), prior_mean, prior_theta, certain, factor=factor * other, unit=unit),
        value,
    )


def _from_lognorm(values: Tensor, depth: Tensor, module: VaDE, scale: Scale) -> Tensor:
    """Values on the lognorm scale brought to the scale asked for."""
    median = float(module.median_library)
    return convert(values, "lognorm", scale, library=depth * median, median_library=median)
