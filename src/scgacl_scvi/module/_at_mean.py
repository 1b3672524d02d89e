"""Batches of cells with z at its posterior mean: what fits after training and reports go by."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ._vade import VaDE


def at_posterior_mean(
    module: "VaDE", batches: Iterable[dict[str, Tensor]]
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Each batch on the module's device, and what the encoder makes of it, ``z`` its posterior mean."""
    for tensors in batches:
        tensors = {key: value.to(module.device) for key, value in tensors.items()}
        inferred = module.encode(**module._get_inference_input(tensors))
        inferred["z"] = inferred["qz"].loc
        yield tensors, inferred
