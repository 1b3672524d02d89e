"""AnnData from every format that scanpy and anndata read, and from tables."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ._labels import Labels
from ._orientation import genes_axis
from ._table import read_table
from ._text import is_text_table

if TYPE_CHECKING:
    from anndata import AnnData

_NOT_UNIQUE = "(Observation|Variable) names are not unique"
_10X_FILES = ("matrix.mtx", "matrix.mtx.gz")


def check_input(path: Path) -> None:
    """Raise if there is no such file or folder."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; check the name and the folder ({path.absolute().parent}).")


def read_anndata(path: Path) -> "AnnData":
    """Read an ``.h5ad`` file or ``.zarr`` folder into memory.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        If there is no such file, it is something else or damaged, or the zarr package is not installed.
    """
    check_input(path)
    if path.suffix not in (".h5ad", ".zarr"):
        raise ValueError(f"{path} is neither .h5ad nor .zarr; run `scgacl preprocess {path} counts.h5ad` first.")
    return _read(path, _read_zarr if path.suffix == ".zarr" else _read_h5ad)


def read_counts(path: Path, *, genes: str, labels: Labels | None, say: Callable[[str], None]) -> "AnnData":
    """Read cells x genes in any of the formats that ``scgacl preprocess`` takes.

    Parameters
    ----------
    path
        ``.h5ad``, ``.zarr``, 10x ``.h5``, a 10x folder with ``matrix.mtx``, ``.loom``, or a table
        (``.csv``, ``.tsv``, ``.txt``, each also ``.gz``).
    genes
        Where a table has its genes: ``"rows"``, ``"columns"`` or ``"auto"``.
    labels
        Labels of the cells, which may tell where the cells are.
    say
        Called with each thing that was decided.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        If there is no such file, it is damaged or of an unknown kind, a package to read it is missing, or it cannot be
        told where a table has its genes.
    """
    check_input(path)
    if is_text_table(path):
        return _read(path, lambda path: _from_table(path, genes, labels, say))
    if genes != "auto":
        raise ValueError(f"`--genes` is for text tables; {path} says itself which are cells and which genes.")
    readers = {".h5ad": _read_h5ad, ".zarr": _read_zarr, ".h5": _read_10x_h5, ".loom": _read_loom}
    if path.suffix in readers:
        return _read(path, readers[path.suffix])
    if path.is_dir() and any((path / name).exists() for name in _10X_FILES):
        return _read(path, _read_10x_folder)
    raise ValueError(
        f"{path} is of no kind that can be read: .csv, .tsv, .txt (each also .gz), .h5ad, .zarr, .loom, 10x .h5, or "
        "a 10x folder with matrix.mtx."
    )


def _read(path: Path, reader: Callable[[Path], "AnnData"]) -> "AnnData":
    """Read; whatever the reader stumbles over is told with the name of the file."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_NOT_UNIQUE)  # put right later, and said
            return reader(path)
    except (OSError, KeyError, ValueError, EOFError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path} cannot be read, it may be damaged or of another kind: {error}") from error


def _from_table(path: Path, genes: str, labels: Labels | None, say: Callable[[str], None]) -> "AnnData":
    import pandas as pd
    from anndata import AnnData

    table = read_table(path)
    reason = "as told"
    if genes == "auto":
        genes, reason = genes_axis(table, labels, path)
    say(f"Genes are the {genes} of {path.name}: {reason}.")
    values, cells, names = table.values, table.rows, table.columns
    if genes == "rows":
        values, cells, names = values.T.tocsr(), names, cells
    return AnnData(values, obs=pd.DataFrame(index=pd.Index(cells)), var=pd.DataFrame(index=pd.Index(names)))


def _read_h5ad(path: Path) -> "AnnData":
    from anndata.io import read_h5ad

    return read_h5ad(path)


def _read_zarr(path: Path) -> "AnnData":
    try:
        import zarr  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{path} needs the zarr package: `pip install 'scgacl-scvi[zarr]'`.") from error
    from anndata.io import read_zarr

    return read_zarr(path)


def _read_10x_h5(path: Path) -> "AnnData":
    import scanpy as sc

    return sc.read_10x_h5(path)


def _read_10x_folder(path: Path) -> "AnnData":
    import scanpy as sc

    return sc.read_10x_mtx(path, make_unique=False)


def _read_loom(path: Path) -> "AnnData":
    try:
        import loompy  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{path} needs the loompy package: `pip install loompy`.") from error
    from anndata.io import read_loom

    return read_loom(path)
