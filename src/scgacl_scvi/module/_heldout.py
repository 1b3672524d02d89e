"""The metric that decides which epoch is kept: how well held-out molecules are predicted, in every phase alike."""

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import HELD_OUT, MISSING_GENES

from ._likelihoods import masked_normal_log_likelihood, masked_squared_error
from ._nonzeros import Nonzeros
from ._posterior import dropout_probability, heldout_log_density
from ._vade import VaDE

HELDOUT_FRACTION = 0.1
"""Share of the molecules of validation cells that is held out."""


def hold_out(x: Tensor, fraction: float, generator: torch.Generator, *, entries: bool = False) -> Tensor:
    """What is held out of some cells: a binomial share of each count, or a random share of the non-zero entries.

    Parameters
    ----------
    x
        Counts, or values for ``entries=True``, cells x genes.
    fraction
        Share that is held out.
    generator
        Draws what.
    entries
        Whether whole entries are held out, as for ``"normal"``, whose values cannot be thinned.
    """
    if entries:
        return x * ((torch.rand(x.shape, generator=generator, device=x.device) < fraction) & (x > 0))
    nonzeros = Nonzeros(x)
    return nonzeros.dense(
        torch.binomial(nonzeros.values, torch.full_like(nonzeros.values, fraction), generator=generator)
    )


def heldout_loss(module: VaDE, tensors: dict[str, Tensor], fraction: float = HELDOUT_FRACTION) -> Tensor:
    """Sum over cells of -log predictive density of held-out molecules, and how many there were.

    The model sees the other molecules and is scored on these, at their depth, dropout included. For ``"normal"``
    entries are hidden instead, and scored by squared error (published) or Gaussian density.

    Parameters
    ----------
    module
        The module, in evaluation mode.
    tensors
        A batch of cells with all their molecules, and which are held out (:func:`hold_out`).
    fraction
        Share that is held out.

    Returns
    -------
    Two values: nats (or squared error), and molecules (or entries).
    """
    x, test = tensors[REGISTRY_KEYS.X_KEY], tensors[HELD_OUT]
    kept, hidden = x - test, test > 0
    normal = module.gene_likelihood == "normal"
    inputs = module._get_inference_input({**tensors, REGISTRY_KEYS.X_KEY: kept})
    inferred = module.encode(**inputs)
    own = module._get_generative_input(tensors, {**inferred, "z": inferred["qz"].loc})
    generated = module.generative(**own, distribution=False)
    if normal:
        target = torch.where(
            hidden, module.lognorm(x, module.library(x.sum(-1, keepdim=True), inputs["size_factor"])), 0.0
        )
        if module.published:
            score = (masked_squared_error(target, generated["scale"]) * x.shape[-1]).sum()
        else:
            score = -masked_normal_log_likelihood(target, generated["scale"], module.log_theta.exp()).sum()
        return torch.stack([score, hidden.sum().to(score)])
    rate, theta, zi_logits = generated["rate"], generated["theta"], generated["zi_logits"]
    if module.use_size_factor:  # the size factor is that of all molecules; the model saw 1 - fraction of them
        rate = rate * (1 - fraction)
    if MISSING_GENES in tensors:  # nothing was held out of them: they are predicted to be 0, for certain
        rate = rate.masked_fill(tensors[MISSING_GENES], 1e-12)
    p_dropout = None if zi_logits is None else dropout_probability(rate, theta, zi_logits)
    density = heldout_log_density(test, kept, rate, theta, fraction / (1 - fraction), p_dropout)
    return torch.stack([-density.sum(), test.sum()])
