"""Down-sampling of counts, molecule by molecule."""

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from scgacl_scvi import _keys

from ._seed import resolve_seed

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK = 2**22  # values drawn at once; the binomial needs them as int64


def thin(counts: Any, fraction: float, seed: int | None = None) -> tuple[Any, Any]:
    """Split counts in two by giving each molecule to the first part with probability ``fraction``.

    Given the counts, the first part is Binomial(counts, fraction). Where the counts are Poisson the two parts are
    independent, which is what molecular cross-validation (Batson, Royer & Webber 2019, doi:10.1101/786269) rests on.

    Parameters
    ----------
    counts
        Counts of molecules, cells x genes: a sparse matrix or array of any format, or a dense array. Not changed.
    fraction
        Expected share of molecules in the first part, 0 to 1.
    seed
        Of the draws. None takes ``scvi.settings.seed``, or 0 where that is None. The result depends on the counts
        and the seed, not on how the counts are stored.

    Returns
    -------
    kept, held_out
        Counts of the shape and dtype of ``counts`` that sum to it exactly; CSR for sparse counts, without stored
        zeros.

    Raises
    ------
    ValueError
        If ``counts`` are not non-negative integers, are above what their dtype holds exactly, or if ``fraction`` is
        not between 0 and 1.

    Examples
    --------
    >>> train, test = datasets.thin(adata.X, 0.9, seed=0)
    """
    fraction = _checked_fraction(fraction)
    rng = np.random.default_rng(resolve_seed(seed))
    if not sp.issparse(counts):
        counts = _as_array(counts)
        _check_counts(counts)
        positive = counts > 0
        kept = np.zeros_like(counts)
        kept[positive] = _binomial(rng, counts[positive], fraction)  # row by row, as CSR stores them
        return kept, counts - kept
    counts = counts.tocsr(copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    _check_counts(counts.data)
    kept = counts.copy()
    kept.data[:] = _binomial(rng, counts.data, fraction)
    counts.data -= kept.data
    for part in (kept, counts):
        part.eliminate_zeros()
    return kept, counts


def downsample(adata: "AnnData", fraction: float, layer: str | None = None, seed: int | None = None) -> "AnnData":
    """Return a copy of ``adata`` with fewer molecules, and the original counts as its truth.

    Parameters
    ----------
    adata
        Cells x genes with raw counts in ``X`` or a layer. Not changed.
    fraction
        Expected share of molecules to keep, 0 to 1.
    layer
        Layer of the counts; None takes ``X``.
    seed
        As for :func:`thin`.

    Returns
    -------
    AnnData
        A copy in memory. ``X``: the counts that were kept; ``layers["truth"]``: all of them (a truth of an earlier
        simulation is replaced). A ``layers["dropout_mask"]`` is removed: it no longer describes ``X``. All else
        stays, also quantities computed from the original counts.

    Raises
    ------
    ValueError
        As :func:`thin`, or if there are no counts where ``layer`` says.

    Examples
    --------
    >>> shallow = datasets.downsample(adata, 0.1, seed=0)
    """
    if layer is not None and layer not in adata.layers:
        layers = _keys.named_layers(adata)
        raise ValueError(f"layer={layer!r} is not in adata.layers; choose one of {layers} or None for X.")
    if layer is None and adata.X is None:
        raise ValueError("layer=None takes adata.X, which is empty; name the layer of the raw counts.")
    _checked_fraction(fraction)  # before a copy is made
    result = adata.to_memory() if adata.isbacked else adata.copy()
    truth = result.X if layer is None else result.layers[layer].copy()
    result.X = thin(truth, fraction, seed)[0]
    result.layers[_keys.TRUTH_LAYER] = truth
    if _keys.DROPOUT_LAYER in result.layers:
        del result.layers[_keys.DROPOUT_LAYER]
    return result


def _binomial(rng: np.random.Generator, counts: np.ndarray, fraction: float) -> np.ndarray:
    kept = np.empty_like(counts)
    for start in range(0, counts.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        kept[block] = rng.binomial(counts[block].astype(np.int64), fraction)
    return kept


def _as_array(counts: Any) -> np.ndarray:
    try:
        return np.asarray(counts)
    except ValueError as error:  # ragged lists, AnnData
        raise ValueError(f"counts must be a numeric array or sparse matrix, got {type(counts)}.") from error


def _check_counts(values: np.ndarray) -> None:
    if values.dtype.kind not in "iuf":
        raise ValueError(
            f"counts must be a numeric array or sparse matrix, got dtype {values.dtype}; pass for example adata.X."
        )
    if values.size == 0:
        return
    low, high = values.min(), values.max()  # NaN makes both NaN
    if not (low >= 0 and np.isfinite(high)) or (values.dtype.kind == "f" and (values != np.floor(values)).any()):
        raise ValueError("counts must be non-negative integers; pass raw counts, or round corrected counts first.")
    # Above this a difference of two counts may not be a value of the dtype, or not one of the sampler's int64.
    exact = np.iinfo(np.int64).max
    if values.dtype.kind == "f":
        exact = min(exact, 2 ** (np.finfo(values.dtype).nmant + 1))
    if int(high) > exact:
        raise ValueError(f"counts must not exceed {exact} to be exact in {values.dtype}; convert them to int64.")


def _checked_fraction(fraction: float) -> float:
    try:
        number = float(fraction)
    except (TypeError, ValueError):
        number = np.nan
    if not 0 <= number <= 1:
        raise ValueError(f"fraction must be a number from 0 to 1, got {fraction!r}; 0.9 keeps 90 % of the molecules.")
    return number
