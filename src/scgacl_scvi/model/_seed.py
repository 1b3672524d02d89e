"""Randomness of a model: always seeded, and never at the expense of the user's own generators."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from scvi import settings


def current_seed() -> int:
    """``scvi.settings.seed``, or 0 where the user set none."""
    return 0 if settings.seed is None else int(settings.seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generators seeded inside, and as they were after."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Denormal numbers are zero inside: they made the joint phase twice as slow on a CPU."""
    tiny = torch.tensor([1e-39])
    was_on = bool((tiny * 1.0 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_on)
