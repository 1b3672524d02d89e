"""The metric that decides which epoch is kept: how well held-out molecules are predicted, in every phase alike."""

import torch
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._keys import MISSING_GENES

from ._likelihoods import masked_normal_log_likelihood, masked_squared_error
from ._nonzeros import Nonzeros
from ._posterior import dropout_probability, heldout_log_density
from ._vade import VaDE


def heldout_loss(module: VaDE, tensors: dict[str, Tensor], fraction: float, generator: torch.Generator) -> Tensor:
    """Sum over cells of -log predictive density of held-out molecules, and how many there were.

    A ``fraction`` of the molecules is thinned away; the model sees the rest and is scored on what was taken, at the
    depth of that, dropout included. For ``"normal"`` a ``fraction`` of the non-zero entries is hidden instead, and
    scored by squared error (published) or Gaussian density.

    Parameters
    ----------
    module
        The module, in evaluation mode.
    tensors
        A batch of cells.
    fraction
        Share that is held out.
    generator
        Draws what is held out.

    Returns
    -------
    Two values: nats (or squared error), and molecules (or entries).
    """
    x = tensors[REGISTRY_KEYS.X_KEY]
    normal = module.gene_likelihood == "normal"
    if normal:
        hidden = (torch.rand(x.shape, generator=generator, device=x.device) < fraction) & (x > 0)
        kept = x * ~hidden
    else:
        nonzeros = Nonzeros(x)
        taken = torch.binomial(nonzeros.values, torch.full_like(nonzeros.values, fraction), generator=generator)
        test = nonzeros.dense(taken)
        kept = x - test
    inputs = module._get_inference_input({**tensors, REGISTRY_KEYS.X_KEY: kept})
    inferred = module.encode(**inputs)
    own = module._get_generative_input(tensors, {**inferred, "z": inferred["qz"].loc})
    generated = module.generative(**own, distribution=False)
    if normal:
        target = torch.where(hidden, module.lognorm(x, module.library(x, inputs["size_factor"])), 0.0)
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
