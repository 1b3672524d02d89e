"""The adversarial losses, on the logit of "real" that the discriminator gives each profile (smoothed targets)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor


def adversarial_loss(fake_logits: Tensor) -> Tensor:
    """The generator's loss: reconstructions taken for real (smoothed targets)."""
    return F.binary_cross_entropy_with_logits(fake_logits, 0.9 + 0.1 * torch.rand_like(fake_logits))


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """The discriminator's loss: real profiles against reconstructions."""
    real = F.binary_cross_entropy_with_logits(real_logits, 0.9 + 0.1 * torch.rand_like(real_logits))
    return real + F.binary_cross_entropy_with_logits(fake_logits, 0.1 * torch.rand_like(fake_logits))


@contextmanager
def frozen(network: torch.nn.Module) -> Iterator[None]:
    """Parameters of a network that take no gradient inside; those that took none before take none after."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
