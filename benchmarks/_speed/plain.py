"""The plain path: our training as scvi-tools would do it, to measure what ours gains and to check that both agree.

Batches read from the AnnData by scvi-tools' loader, likelihoods from its distributions and by automatic
differentiation, separate passes through the discriminator for each loss, Adam parameter by parameter, each loss logged
by Lightning, denormal numbers as they come. The same cells, weights and random numbers: only the arithmetic's order
differs.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import numpy as np


@contextmanager
def plain_path() -> Iterator[None]:
    """Train on the plain path inside."""
    import torch

    from scgacl_scvi.model import _training
    from scgacl_scvi.module import VaDE, _networks
    from scgacl_scvi.module._networks import Discriminator
    from scgacl_scvi.train import CellLoader, SCGACLTrainingPlan, _plan

    adam = torch.optim.Adam

    def by_parameter(parameters, *, fused: bool = False, **settings):
        return adam(parameters, foreach=False, **settings)

    with ExitStack() as stack:
        for owner, name, replacement in (
            (CellLoader, "__iter__", _batches),
            (VaDE, "reconstruction_loss", _reconstruction_loss(VaDE.reconstruction_loss)),
            (Discriminator, "judge_both", _judge_both),
            (_networks, "is_worth_it", lambda nonzeros: False),
            (_plan, "is_worth_it", lambda nonzeros: False),
            (SCGACLTrainingPlan, "_log_values", _log_values),
            (torch.optim, "Adam", by_parameter),
            (_training, "EpochLogger", lambda: None),
            (_training, "flushed_denormals", nullcontext),
        ):
            stack.enter_context(patch.object(owner, name, replacement))
        yield


def _batches(loader) -> Iterator[dict]:
    """The same batches, read by scvi-tools."""
    import torch
    from torch.utils.data import DataLoader

    from scgacl_scvi._keys import HELDOUT_GROUP

    rows = list(loader.batches())
    # What scvi-tools' AnnDataLoader is made of; that itself takes no list of batches.
    reader = DataLoader(
        loader.manager.create_torch_dataset(), sampler=rows, batch_size=None, generator=torch.Generator()
    )
    for chosen, batch in zip(rows, reader, strict=True):
        if HELDOUT_GROUP in loader.columns:
            batch[HELDOUT_GROUP] = loader.columns[HELDOUT_GROUP][torch.from_numpy(np.asarray(chosen))]
        yield loader.withhold(batch, np.asarray(chosen))


def _reconstruction_loss(ours):
    def loss(self, x, profile, generated, visible=None, nonzeros=None):
        from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial

        if self.gene_likelihood == "normal":
            return ours(self, x, profile, generated, visible)
        parameters = {"mu": generated["rate"], "theta": generated["theta"]}
        if self.gene_likelihood == "nb":
            log_prob = NegativeBinomial(**parameters).log_prob(x)
        else:
            log_prob = ZeroInflatedNegativeBinomial(**parameters, zi_logits=generated["zi_logits"]).log_prob(x)
        return -(log_prob if visible is None else log_prob * visible).sum(-1)

    return loss


class _Profile:
    """Stands for :class:`~scgacl_scvi.module._networks.FirstLayer`: the gradient comes from a pass of its own."""

    def __init__(self, fake):
        self.fake = fake

    def slope(self, loss):
        import torch

        return torch.autograd.grad(loss, self.fake, retain_graph=True)[0]


def _judge_both(self, real, fake, nonzeros=None):
    shown = fake.detach().requires_grad_()
    return self(real), self(shown), _Profile(shown)


def _log_values(self, values: dict[str, float]) -> None:
    for key, value in values.items():
        self.log(key, value, prog_bar=key == "train_loss", on_epoch=True)
