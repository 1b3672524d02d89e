"""The least time that a step of training could take on this machine: its arithmetic and its memory traffic."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from unittest.mock import patch

REPEATS = 7


def gemm_rate(batch: int, n_genes: int, n_hidden: int = 128, device: str = "cpu", dtype: str = "float32") -> float:
    """Floating-point operations a second of products of the shapes of the first layer and of its gradients."""
    import torch

    kind = getattr(torch, dtype)
    x = torch.randn(batch, n_genes, device=device, dtype=kind)
    w = torch.randn(n_hidden, n_genes, device=device, dtype=kind)
    h = torch.randn(batch, n_hidden, device=device, dtype=kind)

    def run() -> None:
        torch.mm(x, w.T)
        torch.mm(h.T, x)
        torch.mm(h, w)

    return 3 * 2 * batch * n_genes * n_hidden / _best(run, device)


def peak_gemm_rate(n: int, device: str = "cpu", dtype: str = "float32") -> float:
    """Operations a second of one large square product: the most that the device gives."""
    import torch

    a, b = (torch.randn(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    return 2 * n**3 / _best(lambda: torch.mm(a, b), device)


def bandwidth(megabytes: int = 96, device: str = "cpu") -> float:
    """Bytes a second that a sum of two arrays reads and writes, of arrays that no cache holds."""
    import torch

    a, b, c = (torch.ones(megabytes * 2**18, device=device) for _ in range(3))
    return 3 * a.numel() * 4 / _best(lambda: torch.add(a, b, out=c), device)


def step_bytes(batch: int, n_genes: int, n_parameters: int, zero_inflated: bool) -> int:
    """Memory traffic that a step of the VaDE phase cannot avoid, in float32.

    Each array of cells x genes written once and read once (counts, profile, output or outputs, their gradients), each
    parameter with its gradient and its two moments read and written once.
    """
    arrays = 2 + 2 * (2 if zero_inflated else 1)
    return 4 * (2 * arrays * batch * n_genes + 8 * n_parameters)


@contextmanager
def counted_steps(found: dict[str, int]) -> Iterator[None]:
    """Count floating-point operations of the first step of each phase of our training inside."""
    from torch.utils.flop_counter import FlopCounterMode

    from scgacl_scvi.train import SCGACLTrainingPlan

    step = SCGACLTrainingPlan.training_step

    def counted(self, batch, batch_idx):
        if str(self._phase) in found:
            return step(self, batch, batch_idx)
        with FlopCounterMode(display=False) as counter:
            loss = step(self, batch, batch_idx)
        found[str(self._phase)] = counter.get_total_flops()
        return loss

    with patch.object(SCGACLTrainingPlan, "training_step", counted):
        yield


def _best(function, device: str) -> float:
    """Seconds of the best of a few calls, after one to warm up."""
    import torch

    synchronise = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    times = []
    for _ in range(REPEATS + 1):
        synchronise()
        start = perf_counter()
        for _ in range(10):
            function()
        synchronise()
        times.append((perf_counter() - start) / 10)
    return min(times[1:])
