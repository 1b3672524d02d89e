"""What can be wrong with input, found before any training; each message names the argument and the remedy."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

_CHUNK = 2048


def check_shape(adata: AnnData) -> None:
    """Enough cells and genes, with unique gene names."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"`adata` is a {type(adata).__name__}; give an AnnData of cells x genes.")
    if adata.n_obs < 2:
        raise ValueError(
            f"`adata` has {adata.n_obs} cell(s); imputation borrows from other cells and needs at least 2."
        )
    if adata.n_vars < 2:
        raise ValueError(
            f"`adata` has {adata.n_vars} gene(s); imputation borrows from other genes and needs at least 2."
        )
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()][:3].tolist()
        raise ValueError(
            f"`adata.var_names` are not unique (e.g. {twice}), so no value could be addressed. "
            "Call `adata.var_names_make_unique()` first."
        )


def check_key(adata: AnnData, argument: str, key: str | None, attribute: str = "obs", *, holder: str = "adata") -> None:
    """A key that was given is there; ``holder`` is how the user calls ``adata``."""
    container = getattr(adata, attribute)
    if key is not None and key not in container:
        have = list(container.keys())
        raise KeyError(f"`{argument}={key!r}` is not in `{holder}.{attribute}`; it has {have[:20] or 'nothing'}.")


def check_has_data(model, remedy: str) -> None:
    """The model has data of its own."""
    if model.adata is None:
        raise ValueError(f"The model was made or loaded without data (`adata=False`, or a registry); {remedy}.")


def check_choice(argument: str, value, choices: Sequence) -> None:
    """A value is one of those allowed."""
    if value not in choices:
        raise ValueError(f"`{argument}={value!r}`; choose one of {', '.join(map(repr, choices))}.")


def check_complete(adata: AnnData, argument: str, key: str | None) -> None:
    """A categorical covariate has no missing values."""
    if key is not None and adata.obs[key].isna().any():
        n = int(adata.obs[key].isna().sum())
        raise ValueError(
            f"`{argument}={key!r}`: {n} cell(s) have no value in `adata.obs[{key!r}]`. Give them one (for example "
            "'unknown'), or leave them out."
        )


_MIN_OF_STRATUM = 10


def check_strata(adata: AnnData, key: str | None, batch_key: str | None = None) -> None:
    """Strata are at least two, each of enough cells to stand alone."""
    if key is None:
        return
    sizes = adata.obs[key].astype(str).value_counts()
    if len(sizes) < 2:
        raise ValueError(f"`stratify_by={key!r}`: all cells are {sizes.index[0]!r}; leave it out.")
    if sizes.min() < _MIN_OF_STRATUM:
        raise ValueError(
            f"`stratify_by={key!r}`: {sizes.idxmin()!r} has {sizes.min()} cell(s), and strata borrow nothing from each "
            f"other; {_MIN_OF_STRATUM} are needed. Leave these cells out, or join them to another stratum."
        )
    if key == batch_key:
        raise ValueError(
            f"`stratify_by={key!r}` is `batch_key`, too: one is for differences to keep, the other for those to take "
            "out of the latent space. Give one of them."
        )


def check_numeric(adata: AnnData, argument: str, key: str | None, *, positive: bool = False) -> None:
    """A numeric column is numeric, finite, and positive where it has to be."""
    if key is None:
        return
    column = adata.obs[key]
    if not pd.api.types.is_numeric_dtype(column):
        raise ValueError(f"`{argument}`: `adata.obs[{key!r}]` holds {column.dtype}, not numbers; convert it.")
    values = column.to_numpy(dtype=float, na_value=np.nan)
    if not np.isfinite(values).all():
        raise ValueError(
            f"`{argument}`: `adata.obs[{key!r}]` has missing or infinite values; fill or drop those cells."
        )
    if positive and (values <= 0).any():
        raise ValueError(f"`{argument}`: `adata.obs[{key!r}]` has values <= 0; size factors must be positive.")


def check_matrix(x, where: str, *, input_scale: str, fractional: str) -> None:
    """A cells x genes matrix of counts (or of lognorm values) without surprises.

    Parameters
    ----------
    x
        Dense, sparse or backed matrix.
    where
        How the user calls it, for the message.
    input_scale
        ``"counts"`` or ``"lognorm"``.
    fractional
        ``"raise"`` or ``"round"``: what to do with fractional counts.
    """
    if x is None:
        raise ValueError(f"{where} is empty; put raw counts there or name their layer with `layer=`.")
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise TypeError(f"{where} holds {x.dtype}, not numbers; convert it to a numeric matrix of raw counts.")
    empty, fractions, top = [], 0, 0.0
    for start, values, sums in _chunks(x, whole=fractional == "round"):
        if not np.isfinite(values).all():
            raise ValueError(f"{where} has NaN or infinite values; replace them (a count that was not seen is 0).")
        if (values < 0).any():
            raise ValueError(
                f"{where} has negative values, so it was scaled or batch-corrected. Give raw counts: "
                "`layer='counts'`, or `adata.raw.to_adata()`."
            )
        fractions += int((values != np.rint(values)).sum())
        top = max(top, float(values.max(initial=0.0)))
        empty.extend((start + np.flatnonzero(sums <= 0)).tolist())
    if top == 0:
        raise ValueError(f"{where} holds only zeros; there is nothing to impute from.")
    if empty:
        raise ValueError(
            f"{where}: {len(empty)} cell(s) have no counts at all (the first is number {empty[0]}); nothing says what "
            "they express. Drop them with `sc.pp.filter_cells(adata, min_counts=1)`."
        )
    if input_scale == "counts" and fractions and fractional == "raise":
        looks = "normalised or log-transformed values" if top < 30 else "fractional counts"
        raise ValueError(
            f"{where} is not whole numbers ({fractions} fractional entries); it looks like {looks}. Give raw counts "
            "(`layer='counts'`, or `adata.raw.to_adata()`); for corrected counts (SoupX, RSEM) pass "
            "`fractional='round'`; for log-normalised values pass `input_scale='lognorm'`."
        )


def _chunks(x, *, whole: bool):
    """First row, values and row sums of successive blocks of rows; for sparse blocks only the stored values.

    With ``whole`` the sums are those of the rounded values, for a cell may round to nothing.
    """
    for start in range(0, x.shape[0], _CHUNK) if not sparse.issparse(x) else (0,):
        block = x if sparse.issparse(x) else x[start : start + _CHUNK]
        block = block.compute() if hasattr(block, "compute") else block
        if not sparse.issparse(block):
            block = np.asarray(block)
            yield start, block, (np.rint(block) if whole else block).sum(1)
            continue
        values = np.asarray(block.data)
        if whole:
            block = block.copy()
            block.data = np.rint(block.data)
        yield start, values, np.ravel(block.sum(1))
