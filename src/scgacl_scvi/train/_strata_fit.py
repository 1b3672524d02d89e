"""What keeps the difference between strata: each gene's mean in a stratum is that of its own counts."""

from collections.abc import Iterable

import torch
from scvi import REGISTRY_KEYS

from scgacl_scvi.module import VaDE
from scgacl_scvi.module._gate import counted_share

_MOLECULES = 0.1
"""Molecules by which the factor of a gene is drawn to 1; only one that a stratum does not show is moved."""


@torch.no_grad()
def fit_strata(module: VaDE, batches: Iterable) -> None:
    """Fit the factor that brings each gene's mean at the reference depth, in each stratum, to that of the counts there.

    A generator draws conditions together, and its depth correction gives cells other weights; a mean over cells of a
    condition would show less of a difference than the counts do. One factor for each gene and stratum puts that right.
    A zero counts by the probability that it is no dropout.

    Parameters
    ----------
    module
        The trained module with a count likelihood, its gate fitted or not.
    batches
        Cells, with nothing held out.
    """
    module.eval()
    factor = module.gate.stratum_log_factor
    factor.zero_()
    seen, expected = (torch.zeros(factor.shape, dtype=torch.float64, device=factor.device) for _ in range(2))
    for tensors in batches:
        tensors = {key: value.to(module.device) for key, value in tensors.items()}
        inferred = module.encode(**module._get_inference_input(tensors))
        own = module.predict(tensors, {**inferred, "z": inferred["qz"].loc})
        x, strata = tensors[REGISTRY_KEYS.X_KEY], module.strata(tensors)
        counted = counted_share(x, own["rate"], own["theta"], own["zi_logits"], inferred["visible"])
        seen.index_add_(0, strata, (x * (module.median_library / inferred["library"])).double())
        expected.index_add_(0, strata, (counted * own["scale"]).double())
    factor.copy_(((seen + _MOLECULES) / (expected + _MOLECULES)).log())
