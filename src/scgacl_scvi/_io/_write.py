"""Results replace files in one step, or not at all."""

import os
import secrets
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

ANNDATA_SUFFIXES = (".h5ad", ".zarr")
TABLE_SUFFIXES = (".csv", ".csv.gz")
ZARR_MARKERS = (".zgroup", "zarr.json")
MODEL_MARKERS = ("model.pt",)


def check_output(path: Path, *, overwrite: bool, suffixes: tuple[str, ...] = (), markers: tuple[str, ...] = ()) -> None:
    """Raise if a result could not be written in the end, before any work is done.

    Parameters
    ----------
    path
        File or folder to write.
    overwrite
        Whether what is there may be replaced.
    suffixes
        Allowed endings of the name; any if empty.
    markers
        A folder is replaced only if it is empty or holds a file of such a name, lest a wrong path costs a user's data.

    Raises
    ------
    ValueError
        If the name has another ending.
    FileNotFoundError, FileExistsError
        If the folder does not exist; if something is there that must not be replaced.
    """
    if suffixes and not path.name.lower().endswith(suffixes):
        raise ValueError(f"{path}: the name should end in {' or '.join(suffixes)}.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"{path}: the folder {path.absolute().parent} does not exist; create it first.")
    if not path.exists():
        return
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in markers):
        raise FileExistsError(f"{path} is a folder that holds something else; give another name.")
    if path.is_file() and markers and not suffixes:
        raise FileExistsError(f"{path} is a file, and a folder is to be written; give another name.")
    if not overwrite:
        raise FileExistsError(f"{path} exists; give another name, or `--overwrite` to replace it.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; what was written there then takes the place of ``path``.

    After an exception ``path`` is as it was. The temporary name has the ending of ``path``.
    """
    path = Path(path).resolve()  # a link stays a link
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        _put(temporary, path)
    finally:
        _remove(temporary)


def write_anndata(adata: "AnnData", path: Path) -> None:
    """Write ``.h5ad``, or ``.zarr`` if the name ends so."""
    from anndata import settings

    if path.suffix != ".zarr":
        adata.write_h5ad(path)
        return
    # What anndata will take for its defaults is told, or it warns that they will change.
    wanted = {"zarr_write_format": 3, "auto_shard_zarr_v3": False}
    with warnings.catch_warnings():
        # Raised by zarr about what anndata asks of it, and by anndata 0.13 about telling it its new default.
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        warnings.filterwarnings("ignore", message="This setting will be removed")
        known = {name: value for name, value in wanted.items() if hasattr(settings, name)}
        with settings.override(**known):
            adata.write_zarr(path)


def write_table(frame: "pd.DataFrame", path: Path) -> None:
    """Write cells x genes as csv with a header and the cells' names; float32 is read back bit for bit."""
    frame.to_csv(path, index_label="cell")


def _put(temporary: Path, path: Path) -> None:
    if not (path.is_dir() or (path.exists() and temporary.is_dir())):
        os.replace(temporary, path)
        return
    # A folder cannot be replaced in one step: the old one steps aside, and comes back if the new one cannot come.
    aside = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(aside, path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def forget_registration(adata: "AnnData", obs: set[str], uns: set[str]) -> None:
    """Remove what scvi-tools put into an AnnData for itself, but for keys that were there (``obs``, ``uns``) before."""
    for key in [key for key in adata.obs if key.startswith("_scvi_") and key not in obs]:
        del adata.obs[key]
    for key in [key for key in adata.uns if key.startswith("_scvi_") and key not in uns]:
        del adata.uns[key]
