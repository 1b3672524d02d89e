"""The scales of expression, and the one conversion between them.

Every scale maps an absent gene to 0, so a sparse matrix stays sparse. NumPy arrays, SciPy sparse matrices (CSR) and
PyTorch tensors are taken, and given back in kind.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from scipy import sparse

Scale = Literal["lognorm", "cp10k", "log1p_cp10k", "counts"]
"""Name of a scale."""

SCALES: tuple[str, ...] = get_args(Scale)
LOG_SCALES = ("lognorm", "log1p_cp10k")
"""Scales that are the log1p of something."""

UNITS: Mapping[str, str] = {
    "lognorm": "log1p(counts / library x m), m = median library of the training cells",
    "cp10k": "counts per 10,000 of the cell's library",
    "log1p_cp10k": "log1p(counts per 10,000 of the cell's library)",
    "counts": "counts at the cell's own library size",
}
"""Unit of each scale, in words; kept in ``adata.uns["scgacl"]`` beside a layer's scale."""

CP10K = 1e4


def convert(values: Any, source: Scale, target: Scale, *, library: Any = None, median_library: float | None = None):
    """Bring expression from one scale to another.

    Parameters
    ----------
    values
        Cells x genes (or samples x cells x genes) on the scale ``source``, none negative.
    source, target
        ``"lognorm"``: log1p(counts / library x m); ``"cp10k"``: counts / library x 10,000; ``"log1p_cp10k"``: its
        log1p; ``"counts"``.
    library
        Library size of each cell (counts), one value a cell; needed to or from ``"counts"`` only.
    median_library
        m, the median library of the training cells (counts), which is kept as ``median_library`` in
        ``adata.uns["scgacl"][layer]``; needed to or from ``"lognorm"`` only.

    Returns
    -------
    The same kind of matrix on the scale ``target``; ``values`` itself where the two are the same.

    Raises
    ------
    ValueError
        If a scale is unknown, or ``library`` or ``median_library`` is needed and missing, not positive or of another
        length.

    Examples
    --------
    >>> import numpy as np
    >>> from scgacl_scvi import scales
    >>> scales.convert(np.array([[1.0, 3.0]]), "counts", "cp10k", library=[4.0]).tolist()
    [[2500.0, 7500.0]]
    """
    for name, scale in (("source", source), ("target", target)):
        if scale not in SCALES:
            raise ValueError(f"`{name}={scale!r}` is not a scale; choose from {', '.join(SCALES)}.")
    if source == target:
        return values
    linear = _expm1(values) if source in LOG_SCALES else values
    start, end = (_depth(scale, values, library, median_library) for scale in (source, target))
    if start is not end:  # both logs of cp10k, or cp10k and its log: nothing is rescaled
        linear = _times(linear, end / start)
    return _log1p(linear) if target in LOG_SCALES else linear


def warn_other_scale(found: str | None, expected: Scale, argument: str, *, stacklevel: int = 3) -> None:
    """Warn where values are recorded to be on another scale than what they are about to be compared with.

    Parameters
    ----------
    found
        The recorded scale, or None where nothing is known of it.
    expected
        The scale of the other side.
    argument
        Name of the argument that holds the values.
    """
    if found is not None and found != expected:
        warnings.warn(
            f"`{argument}` is on the scale {found!r} ({UNITS.get(found, 'unknown unit')}) and is compared with "
            f"{expected!r} ({UNITS[expected]}); bring it there with `scgacl_scvi.scales.convert(...)`.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


_TEN_THOUSAND = np.float64(CP10K)


def _depth(scale: str, values: Any, library: Any, median_library: float | None) -> Any:
    """Library size that values on a scale (or under its log) have: one number, or one a cell."""
    if scale in ("cp10k", "log1p_cp10k"):
        return _TEN_THOUSAND
    if scale == "lognorm":
        if median_library is None or not 0 < float(median_library) < math.inf:
            raise ValueError(
                f"`median_library={median_library}`; the lognorm scale needs the median library of the training cells, "
                '`adata.uns["scgacl"][layer]["median_library"]`.'
            )
        return np.float64(median_library)
    if library is None:
        raise ValueError("`library` is missing; the counts scale needs the library size of each cell, `x.sum(1)`.")
    depth = library.reshape(-1, 1) if _is_tensor(library) else np.asarray(library, dtype=np.float64).reshape(-1, 1)
    if depth.shape[0] != values.shape[-2] or not bool((depth > 0).all()):
        raise ValueError(
            f"`library` has {depth.shape[0]} values for {values.shape[-2]} cells, or one that is not above 0; give one "
            "positive number a cell."
        )
    return depth


def _is_tensor(x: Any) -> bool:
    return type(x).__module__.partition(".")[0] == "torch"


def _times(values: Any, factor: Any) -> Any:
    """Values times one number, or times one number a cell."""
    if sparse.issparse(values):
        scaled = values.astype(np.result_type(values.dtype, np.float32))  # a copy
        per_cell = np.ravel(factor)
        scaled.data *= per_cell[0] if per_cell.size == 1 else np.repeat(per_cell, np.diff(scaled.indptr))
        return scaled
    if _is_tensor(values):
        if np.ndim(factor) == 0 and not _is_tensor(factor):
            return values * float(factor)
        import torch

        return values * torch.as_tensor(factor).to(values)
    values = np.asarray(values)
    return (values * factor).astype(np.result_type(values.dtype, np.float32), copy=False)


def _log1p(x: Any) -> Any:
    return x.log1p() if hasattr(x, "log1p") else np.log1p(x)


def _expm1(x: Any) -> Any:
    return x.expm1() if hasattr(x, "expm1") else np.expm1(x)
