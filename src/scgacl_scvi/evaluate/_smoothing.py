"""What is smoothed away between conditions: the model with strata beside the model without."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._difference import N_GENES, difference_kept
from ._scale import lognorm
from ._variance import within_type_variance_ratio

if TYPE_CHECKING:
    from anndata import AnnData

WITHOUT, WITH = "without strata", "with strata"
COLUMNS = ["fit", "cells", "n_cells", "difference_kept", "correlation", "variance_ratio"]


def smoothing(
    adata: "AnnData",
    stratify_by: str,
    groupby: str | None = None,
    *,
    policy: str = "denoise",
    n_genes: int = N_GENES,
    setup: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Fit the model with and without ``stratify_by``, and say how much of the difference between conditions each keeps.

    Parameters
    ----------
    adata
        Raw counts, cells x genes. Nothing in it changes.
    stratify_by
        Column of ``adata.obs`` with the conditions. Of more than two, each is compared with all others.
    groupby
        Column of ``adata.obs`` with cell types, to look at each by itself. The model does not see it (unless ``setup``
        names it as ``labels_key``).
    policy
        Of :meth:`scgacl_scvi.SCGACL.get_imputed_expression`.
    n_genes
        Of :func:`difference_kept`.
    setup, model, train
        Further arguments of ``SCGACL.setup_anndata``, ``SCGACL`` and ``SCGACL.train``.

    Returns
    -------
    For each fit a row for all cells, and one for each cell type (and each condition, if there are more than two):

    - ``fit``: ``"without strata"`` or ``"with strata"``
    - ``cells``: which cells
    - ``n_cells``
    - ``difference_kept``, ``correlation``: see :func:`difference_kept`; NaN where a type has fewer than two cells in a
      condition
    - ``variance_ratio``: :func:`within_type_variance_ratio` inside the conditions; near 0 is over-smoothed

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If the data or arguments do not suit the model.

    Examples
    --------
    >>> table = smoothing(adata, "condition", "cell_type")
    >>> table.pivot(index="cells", columns="fit", values="difference_kept")
    """
    from scgacl_scvi import SCGACL

    for argument, key in (("stratify_by", stratify_by), ("groupby", groupby)):
        if key is not None and key not in adata.obs:
            raise KeyError(f"`{argument}={key!r}` is not in `adata.obs`; it has {list(adata.obs)}.")
    setup = dict(setup or {})
    if "stratify_by" in setup:
        raise ValueError("`setup`: the comparison itself sets `stratify_by`; leave it out.")
    counts = adata.X if (layer := setup.pop("layer", None)) is None else adata.layers[layer]
    raw = lognorm(counts)
    conditions = adata.obs[stratify_by].astype(str).to_numpy()
    types = None if groupby is None else adata.obs[groupby].astype(object).fillna("none").astype(str).to_numpy()
    rows = []
    for fit, key in ((WITHOUT, None), (WITH, stratify_by)):
        fitted = _light(adata, counts)
        SCGACL.setup_anndata(fitted, stratify_by=key, **setup)
        trained = SCGACL(fitted, **(model or {}))
        trained.train(**(train or {}))
        values = trained.get_imputed_expression(policy=policy, return_numpy=True, layer_key=None)
        for name, cells in _subsets(types, len(conditions)):
            rows += [{"fit": fit, **row} for row in _rows(name, values[cells], raw[cells], conditions[cells], n_genes)]
    return pd.DataFrame(rows)[COLUMNS]


def _light(adata: "AnnData", counts) -> "AnnData":
    """The counts and columns alone, in an AnnData of its own."""
    from anndata import AnnData

    return AnnData(counts, obs=adata.obs.copy(), var=pd.DataFrame(index=adata.var_names))


def _subsets(types: np.ndarray | None, n: int):
    yield "all", np.arange(n)
    for name in [] if types is None else np.unique(types):
        yield name, np.flatnonzero(types == name)


def _rows(name: str, values, raw, conditions: np.ndarray, n_genes: int):
    """A row of figures for some cells; of more than two conditions one for each against the others."""
    found = np.unique(conditions)
    contrasts = [(name, conditions)]
    if len(found) > 2:
        contrasts = [(f"{name}, {one}", np.where(conditions == one, one, "others")) for one in found]
    for label, groups in contrasts:
        kept, correlation, variance = (np.nan,) * 3
        sizes = np.unique(groups, return_counts=True)[1]
        if len(sizes) == 2 and sizes.min() >= 2:
            difference = difference_kept(values, raw, groups, n_genes)
            kept, correlation = difference.slope, difference.correlation
            variance = within_type_variance_ratio(values, raw, conditions)
        yield {
            "cells": label,
            "n_cells": len(groups),
            "difference_kept": kept,
            "correlation": correlation,
            "variance_ratio": variance,
        }
