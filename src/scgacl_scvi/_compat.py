"""The only importer of private names of scvi-tools, and the only place that knows versions of the packages below us."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from scvi import settings
from scvi.data._utils import _validate_adata_dataloader_input as validate_adata_dataloader_input
from scvi.model._utils import _get_batch_code_from_category as batch_codes
from scvi.model._utils import use_distributed_sampler
from scvi.model.base._archesmixin import _get_loaded_data as loaded_data

__all__ = [
    "batch_codes",
    "clip_gradients",
    "loaded_data",
    "scvi_seed",
    "torch_threads_kept",
    "use_distributed_sampler",
    "validate_adata_dataloader_input",
    "without_lightning_noise",
]


@contextmanager
def scvi_seed(seed: int) -> Iterator[None]:
    """``scvi.settings.seed`` set inside and as it was after; its public setter would seed the user's generators."""
    before = settings._seed
    settings._seed = seed
    try:
        yield
    finally:
        settings._seed = before


@contextmanager
def without_lightning_noise() -> Iterator[None]:
    """No warnings that Lightning raises about its own code or about choices that we make on purpose."""
    with warnings.catch_warnings():
        # Lightning 2.6 calls a function that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # Batches come from memory: worker processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        yield


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """PyTorch's number of threads as it was after: scikit-learn's fits set it to that of the machine.

    On a busy machine two threads of PyTorch wait for each other actively, and a fit takes up to twenty times as long.
    """
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def clip_gradients(parameters: list, max_norm: float) -> None:
    """Scale gradients to a norm of at most ``max_norm``; on a CPU they are left alone where that is no change."""
    import torch

    if not hasattr(torch.nn.utils, "get_total_norm"):  # torch below 2.6
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        return
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm.device.type != "cpu" or not norm <= max_norm:  # elsewhere to look at it would wait for the device
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
