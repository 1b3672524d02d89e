"""New batches beside a trained model: what is added to it, what may be trained, and what stays to the bit."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from scvi.nn import FCLayers
from torch import Tensor

from scgacl_scvi.module import VaDE

from ._gate_fit import MIN_EVIDENCE, batch_evidence, gate_sums

BY_BATCH = ("log_theta", "gate.batch_log_ratio")
"""Entries of a module's state with a row for each batch, where they have two dimensions."""


def extended_state(module: VaDE, reference: dict[str, Tensor], sizes: Sequence[int]) -> dict[str, Tensor]:
    """State of a module with more categories than the reference: the reference's values, new ones at the average.

    Parameters
    ----------
    module
        The module with the new categories.
    reference
        State of the reference.
    sizes
        Number of categories of the batch and of each further categorical covariate in the reference.

    Returns
    -------
    A state for ``module``. A new category's weights are the mean of those of the known ones: what the model makes of it
    before any training is what it makes of an average batch.
    """
    state = {key: value.clone() for key, value in reference.items()}
    for name, layers in _first_layers(module):
        known, new = _columns(layers, sizes)
        weight = torch.zeros_like(layers.fc_layers[0][0].weight)
        old, n_shared = reference[f"{name}.fc_layers.Layer 0.0.weight"].to(weight), _n_shared(layers)
        weight[:, :n_shared] = old[:, :n_shared]
        start = n_shared
        for (columns, added), size in zip(zip(known, new, strict=True), sizes, strict=True):
            if size > 1:  # a single category has no column: it is the zero that others are compared with
                weight[:, columns] = old[:, start : start + size]
                weight[:, added] = weight[:, columns].mean(1, keepdim=True)
                start += size
        state[f"{name}.fc_layers.Layer 0.0.weight"] = weight
    for key in BY_BATCH:
        if state[key].ndim == 2:
            n_new = module.n_batch - len(state[key])
            added = torch.zeros_like(state[key][:1]) if key.startswith("gate") else state[key].mean(0, keepdim=True)
            state[key] = torch.cat([state[key], added.expand(n_new, -1)])
    return state


@contextmanager
def only_new_trainable(module: VaDE, sizes: Sequence[int]) -> Iterator[None]:
    """Inside, gradients reach the weights of new categories only; every other value is put back at the end.

    Parameters
    ----------
    module
        The module.
    sizes
        As :func:`extended_state`.
    """
    trainable = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    before = {key: value.clone() for key, value in module.state_dict().items()}
    free, hooks = {}, []
    module.requires_grad_(False)
    for name, layers in _first_layers(module):
        weight, (_, new) = layers.fc_layers[0][0].weight, _columns(layers, sizes)
        mask = torch.zeros(weight.shape[1], dtype=torch.bool, device=weight.device)
        for added in new:
            mask[added] = True
        free[f"{name}.fc_layers.Layer 0.0.weight"] = mask.expand_as(weight)
        hooks.append(weight.requires_grad_(bool(mask.any())).register_hook(lambda grad, m=mask: grad * m))
    module.n_frozen_batches = sizes[0]
    if module.log_theta.ndim == 2 and module.n_batch > sizes[0]:
        rows = torch.arange(module.n_batch, device=module.log_theta.device)[:, None] >= sizes[0]
        free["log_theta"] = rows.expand_as(module.log_theta)
        hooks.append(module.log_theta.requires_grad_().register_hook(lambda grad: grad * rows))
    try:
        yield
    finally:
        module.n_frozen_batches = 0
        for hook in hooks:
            hook.remove()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(trainable[name])
        with torch.no_grad():
            for key, value in module.state_dict().items():
                mask = free.get(key)
                kept = before[key].to(value.device)
                value.copy_(kept if mask is None else torch.where(mask.to(value.device), value, kept))


@torch.no_grad()
def fit_new_batches(
    module: VaDE,
    n_known: int,
    heldout_batches: Callable[[], Iterable],
    unseen_batches: Callable[[], Iterable],
    all_batches: Callable[[], Iterable],
) -> None:
    """Each gene's mean in the new batches, where held-out entries prefer it to the gene's mean over all.

    Everything else of the gate stays as the reference has it. Arguments as :func:`~._gate_fit.fit_gate`; ``n_known`` is
    the number of batches of the reference.
    """
    module.eval()
    gate = module.gate
    if len(gate.batch_log_ratio) == n_known:
        return
    gate_sums(module, heldout_batches()).store_new_batches(gate, n_known)
    supported = batch_evidence(module, chain(heldout_batches(), unseen_batches()), n_known) >= MIN_EVIDENCE
    gate_sums(module, all_batches()).store_new_batches(gate, n_known, supported)


def _first_layers(module: VaDE) -> Iterator[tuple[str, FCLayers]]:
    """Name and layers of all that covariates enter."""
    for part in ("encoder", "decoder") if module.encode_covariates else ("decoder",):
        for name, layers in getattr(module, part).named_modules():
            if isinstance(layers, FCLayers):
                yield f"{part}.{name}", layers


def _n_shared(layers: FCLayers) -> int:
    """Columns of a layer's weight that belong to no category: features and continuous covariates."""
    return layers.fc_layers[0][0].in_features - sum(layers.n_cat_list)


def _columns(layers: FCLayers, sizes: Sequence[int]) -> tuple[list[slice], list[slice]]:
    """Columns of each covariate's known and new categories in a layer's weight."""
    known, new, start = [], [], _n_shared(layers)
    for n, size in zip(layers.n_cat_list, sizes, strict=True):
        known.append(slice(start, start + min(size, n)))
        new.append(slice(start + min(size, n), start + n))
        start += n
    return known, new
