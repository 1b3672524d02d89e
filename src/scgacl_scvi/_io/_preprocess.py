"""From a file of counts to the AnnData that a model takes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from scgacl_scvi._keys import CELL_TYPE, named_layers

from ._labels import Labels, read_labels
from ._read import check_input, read_counts
from ._text import counted, is_text_table, some

if TYPE_CHECKING:
    from anndata import AnnData


def preprocess(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    genes: Literal["auto", "rows", "columns"] = "auto",
    layer: str | None = None,
    n_top_genes: int = 5000,
    min_cells: int = 1,
    fractional: Literal["raise", "round"] = "raise",
    say: Callable[[str], None] = print,
) -> "AnnData":
    """Read counts and prepare them as the paper does.

    Genes and cells without a count are dropped; above ``n_top_genes`` genes the most variable ones are kept.

    Parameters
    ----------
    path
        File or folder; see :func:`read_counts`.
    labels
        Text file with a label for each cell: two columns (cell, label) with a header, or one column in the cells'
        order. An empty label, or NA, is no label.
    genes
        Where a table has its genes. ``"auto"`` takes what labels or names make certain.
    layer
        Layer of the raw counts; None for ``X``.
    n_top_genes
        Number of genes to keep at most, by the variance of their Pearson residuals
        (``scanpy.experimental.pp.highly_variable_genes``; Lause, Berens & Kobak 2021); 0 keeps all.
    min_cells
        A gene is kept if at least so many cells have a count of it.
    fractional
        What to do with fractional counts: ``"raise"``, or ``"round"`` them (SoupX, RSEM).
    say
        Called with each thing that was decided or dropped.

    Returns
    -------
    Cells x genes in the order of the file; ``X`` holds raw counts (CSR, float32), ``obs["cell_type"]`` the labels.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        If something cannot be read, or is no matrix of counts, or labels do not match.
    """
    path = Path(path)
    check_input(path)
    given = None
    if labels is not None:
        check_input(Path(labels))
        given = read_labels(Path(labels))
    adata = read_counts(path, genes=genes, labels=given, say=say)
    adata.X = _counts(adata, layer, fractional, path)
    if given is not None:
        _set_labels(adata, given, say)
    _name_apart(adata, say)
    say(f"Read {adata.n_obs:,} cells x {adata.n_vars:,} genes.")
    adata = _drop_empty(adata, max(1, min_cells), say)
    if 0 < n_top_genes < adata.n_vars:
        n_vars = adata.n_vars
        adata = adata[:, _most_variable(adata, n_top_genes)].copy()
        say(f"Kept the {n_top_genes:,} most variable of {n_vars:,} genes.")
        adata = _drop_empty(adata, 1, say)
    return adata


def _counts(adata: "AnnData", layer: str | None, fractional: str, path: Path) -> sparse.csr_matrix:
    """Raw counts as CSR float32; raises if they are none."""
    if layer is not None and layer not in adata.layers:
        raise ValueError(f"`--layer {layer}`: {path} has no such layer; it has {named_layers(adata) or 'none'}.")
    x = adata.X if layer is None else adata.layers[layer]
    where = (
        f"{path}: X" if layer is None and not is_text_table(path) else str(path) if layer is None else f"layer {layer}"
    )
    if x is None:
        raise ValueError(f"{where} is empty; name the layer of the raw counts with `--layer`.")
    x = sparse.csr_matrix(x, copy=True)
    x.sum_duplicates()
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise ValueError(f"{where} holds {x.dtype}, not counts.")
    if not np.isfinite(x.data).all():
        raise ValueError(f"{where} has NaN or infinite values; replace them (a count that was not seen is 0).")
    if (x.data < 0).any():
        raise ValueError(
            f"{where} has negative values, so it was scaled or corrected; give raw counts.{_other(adata, layer)}"
        )
    if fractional == "round":
        x.data = np.rint(x.data)
    broken = int((x.data != np.rint(x.data)).sum())
    if broken:
        raise ValueError(
            f"{where} is not whole numbers ({broken:,} fractional entries); give raw counts, neither normalised nor "
            f"log-transformed, or `--fractional round` for corrected counts (SoupX, RSEM).{_other(adata, layer)}"
        )
    x.eliminate_zeros()
    return x.astype(np.float32)


def _other(adata: "AnnData", layer: str | None) -> str:
    """Where else whole numbers lie, as a hint."""
    whole = [key for key, x in adata.layers.items() if key != layer and _is_whole(x)]
    if whole:
        return f" Whole numbers are in layer {some(whole)}: `--layer {whole[0]}`."
    return " Whole numbers are in .raw: save `adata.raw.to_adata()`." if adata.raw and _is_whole(adata.raw.X) else ""


def _is_whole(x: Any) -> bool:
    data = x.data if sparse.issparse(x) else np.asarray(x)
    return data.dtype.kind in "iuf" and bool(((data >= 0) & (data == np.rint(data))).all())


def _set_labels(adata: "AnnData", given: Labels, say: Callable[[str], None]) -> None:
    import pandas as pd

    values, how = given.of(adata.obs_names.tolist())
    column = pd.Categorical(values)
    adata.obs[CELL_TYPE] = column
    n_missing = int((column.codes < 0).sum())
    unlabelled = f", {counted(n_missing, 'cell')} without a label" if n_missing else ""
    say(f"Labels matched {how}: {counted(len(column.categories), 'type')} in obs['{CELL_TYPE}']{unlabelled}.")


def _name_apart(adata: "AnnData", say: Callable[[str], None]) -> None:
    """Make names unique."""
    for what, names, rename in (
        ("gene", adata.var_names, adata.var_names_make_unique),
        ("cell", adata.obs_names, adata.obs_names_make_unique),
    ):
        if not names.is_unique:
            twice = names[names.duplicated()].unique().tolist()
            rename()
            say(f"{counted(len(twice), f'{what} name')} not unique ({some(twice)}): repeats are numbered -1, -2, ...")


def _drop_empty(adata: "AnnData", min_cells: int, say: Callable[[str], None]) -> "AnnData":
    """Without genes seen in fewer cells than ``min_cells``, and without cells that have no count of the others."""
    genes = adata.X.getnnz(axis=0) >= min_cells
    cells = adata.X[:, genes].getnnz(axis=1) > 0
    if not cells.any():
        raise ValueError("No count is left after dropping empty genes and cells; check the file and `--min-cells`.")
    where = "without a count" if min_cells == 1 else f"with a count in fewer than {min_cells} cells"
    if not genes.all():
        say(f"Dropped {counted((~genes).sum(), 'gene')} {where}.")
    if not cells.all():
        say(f"Dropped {counted((~cells).sum(), 'cell')} without a count.")
    return adata if genes.all() and cells.all() else adata[cells, genes].copy()


def _most_variable(adata: "AnnData", n: int) -> np.ndarray:
    """Positions of exactly ``n`` genes, in the order of the data; ties go to the first."""
    import scanpy as sc

    # Of scanpy's flavours this one takes counts as they are, and needs no package besides scanpy's own.
    table = sc.experimental.pp.highly_variable_genes(adata, flavor="pearson_residuals", n_top_genes=n, inplace=False)
    return np.sort(np.argsort(-table["residual_variances"].to_numpy(), kind="stable")[:n])
