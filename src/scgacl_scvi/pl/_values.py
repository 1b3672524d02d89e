"""Values of single genes on the lognorm scale."""

from typing import Any, Literal

import numpy as np
from scipy import sparse

from scgacl_scvi._keys import LAYER, UNS, named_layers
from scgacl_scvi.scales import warn_other_scale

Scale = Literal["auto", "counts", "lognorm"]


def matrix(adata: Any, layer: str | None, argument: str = "layer") -> Any:
    """``adata.X`` or a layer of it."""
    if layer is None:
        return adata.X
    if layer not in adata.layers:
        hint = "run model.get_imputed_expression() first" if layer == LAYER else f"choose from {named_layers(adata)}"
        raise ValueError(f"{argument}: {layer!r} is not in adata.layers; {hint}")
    return adata.layers[layer]


def warn_unless_lognorm(adata: Any, layer: str | None, argument: str = "layer") -> None:
    """Warn where ``adata.uns`` says that a layer about to be drawn on lognorm axes is on another scale."""
    record = adata.uns.get(UNS, {}).get(layer, {}) if layer is not None else {}
    found = record.get("scale", record.get("quantity"))
    if found == "counts" and _is_counts(adata.layers[layer]):
        return  # whole numbers are log-normalised before they are drawn
    warn_other_scale(found, "lognorm", argument, stacklevel=3)


def column(adata: Any, gene: str, argument: str) -> int:
    """Position of a gene."""
    found = np.flatnonzero(adata.var_names == gene)
    if len(found) == 0:
        raise ValueError(f"{argument}: {gene!r} is not in adata.var_names; check its spelling and case")
    if len(found) > 1:
        raise ValueError(f"{argument}: {gene!r} occurs {len(found)} times; run adata.var_names_make_unique() first")
    return int(found[0])


def lognorm_genes(x: Any, genes: list[int], scale: Scale = "auto") -> np.ndarray:
    """Lognorm values of some genes, cells x genes, float64; counts are scaled to the median library of all genes.

    ``"auto"`` takes whole numbers for counts and anything else for lognorm.
    """
    if scale not in ("auto", "counts", "lognorm"):
        raise ValueError(f"scale: got {scale!r}; use 'auto', 'counts' or 'lognorm'")
    values = x[:, genes]
    values = np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float64)
    if scale == "lognorm" or (scale == "auto" and not _is_counts(x)):
        return values
    library = np.asarray(x.sum(axis=1), dtype=np.float64).ravel()
    filled = library > 0
    if not filled.any():
        return values
    return np.log1p(values / np.where(filled, library, 1.0)[:, None] * np.median(library[filled]))


def _is_counts(x: Any) -> bool:
    """Whether all values are whole and not negative; stops at the first block of values that is not."""
    values = x.data if sparse.issparse(x) else np.asarray(x)
    if values.dtype.kind in "bu":
        return True
    step = max(1, 2**21 // (values.shape[1] if values.ndim == 2 else 1))
    blocks = (values[i : i + step] for i in range(0, len(values), step))
    return all((block >= 0).all() and (block % 1 == 0).all() for block in blocks)
