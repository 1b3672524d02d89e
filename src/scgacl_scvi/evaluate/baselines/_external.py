"""Imputers that cannot share our environment: each runs in an interpreter of its own, found by a variable.

Counts and rates travel through files in a temporary folder, without pickle. What runs on the other side is in
``_adapters``, which is never imported here.
"""

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from scgacl_scvi.datasets._seed import resolve_seed
from scgacl_scvi.evaluate._matrix import as_matrix, check_values

__all__ = ["PEERS", "Peer", "PeerResult", "PeerUnavailable", "cellmapper", "dca", "magic", "run_peer"]

ADAPTERS = Path(__file__).parent / "_adapters"

# What a child may see of our environment; PYTHONPATH, MPLBACKEND, KERAS_BACKEND and the like would change the tool. So
# would its settings in the user's home, hence HOME is the temporary folder.
_KEPT_VARIABLES = {
    *("PATH", "USER", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "CUDA_VISIBLE_DEVICES"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR"),
}

_TAIL_LINES = 12


class PeerUnavailable(RuntimeError):
    """A tool is not there: no interpreter was named, it does not exist, or it cannot import the tool."""


@dataclass(frozen=True)
class Peer:
    """A tool and the Python minor version that its pinned requirements need."""

    name: str
    python: str

    @property
    def variable(self) -> str:
        """Environment variable that holds the path of its interpreter."""
        return f"SCGACL_PEER_{self.name.upper()}"

    @property
    def requirements(self) -> Path:
        """Requirements file with versions that are known to work together."""
        return ADAPTERS / f"{self.name}.txt"

    def commands(self, folder: str = ".peers") -> tuple[str, ...]:
        """Shell commands that make its environment below ``folder`` and name its interpreter."""
        home = f"{folder}/{self.name}"
        return (
            f"python{self.python} -m venv {home}",
            f"{home}/bin/python -m pip install -r {shlex.quote(str(self.requirements))}",
            f'export {self.variable}="{"" if os.path.isabs(folder) else "$PWD/"}{home}/bin/python"',
        )


PEERS = {peer.name: peer for peer in (Peer("magic", "3.10"), Peer("dca", "3.8"), Peer("cellmapper", "3.11"))}
"""The tools, and the Python that each is known to work with."""


@dataclass(frozen=True)
class PeerResult:
    """Rates of a tool and what they cost.

    Attributes
    ----------
    rates
        Expected counts at each cell's own depth, cells x genes, float32. Scale: counts.
    version
        Version of the tool.
    seconds
        Time inside the tool, with its normalisation, without import, compilation and the exchange of files.
    peak_bytes
        Largest resident memory of the tool's process, imports included; None where the system does not tell.
    cpu_seconds
        Processor time of the same part, over all threads.
    """

    rates: np.ndarray
    version: str
    seconds: float
    peak_bytes: int | None
    cpu_seconds: float


def magic(
    counts: Any,
    *,
    python: str | os.PathLike | None = None,
    seed: int | None = None,
    reversed_normalisation: bool = False,
) -> np.ndarray:
    """Denoise with MAGIC: diffusion over the neighbour graph. Scale: counts, at each cell's own depth.

    MAGIC's defaults on its documented preprocessing: each cell brought to the median library size, then the square
    root; the result is squared and brought back to the cell's library size. A mean of roots, squared, lies below the
    mean, so cells lose a part of their total; nothing is done about it here.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.
    python
        Interpreter that has magic-impute; None for the one in the variable ``SCGACL_PEER_MAGIC``.
    seed
        Seed of the randomised PCA, below 2**32; None for ``scvi.settings.seed``, else 0.
    reversed_normalisation
        Square root first, normalisation second, each undone exactly afterwards (a variant in Open Problems).

    Returns
    -------
    Expected counts, cells x genes, dense float32. Cells and genes without a count stay at zero.

    Raises
    ------
    PeerUnavailable
        If no interpreter is named, it does not exist or it cannot import the tool; the message holds the commands that
        make it.
    RuntimeError
        If the tool crashes, or returns another shape, a negative or a non-finite value.
    ValueError
        If ``counts`` is not a matrix of finite, non-negative numbers with at least one above zero.

    Examples
    --------
    >>> from scgacl_scvi.evaluate.baselines import magic
    >>> magic(counts, python=".peers/magic/bin/python").shape == counts.shape  # doctest: +SKIP
    True

    References
    ----------
    van Dijk et al. 2018, doi:10.1016/j.cell.2018.05.061.
    """
    return run_peer(
        "magic", counts, python=python, seed=seed, reversed_normalisation=bool(reversed_normalisation)
    ).rates


def dca(counts: Any, *, python: str | os.PathLike | None = None, seed: int | None = None) -> np.ndarray:
    """Denoise with DCA: a negative binomial autoencoder. Scale: counts, at each cell's own depth.

    DCA's defaults; its means are at its own size factors, library / median library. As many threads as
    ``OMP_NUM_THREADS`` says, all where it is not set; only one thread gives the same result twice.

    Parameters
    ----------
    counts
        Counts (whole numbers), cells x genes, dense or sparse.
    python
        Interpreter that has dca; None for the one in the variable ``SCGACL_PEER_DCA``.
    seed
        Seed of initialisation and batches, below 2**32; None for ``scvi.settings.seed``, else 0.

    Returns
    -------
    Expected counts, cells x genes, dense float32. Cells and genes without a count stay at zero.

    Raises
    ------
    PeerUnavailable, RuntimeError, ValueError
        As :func:`magic`.

    Examples
    --------
    >>> from scgacl_scvi.evaluate.baselines import dca
    >>> dca(counts, python=".peers/dca/bin/python").shape == counts.shape  # doctest: +SKIP
    True

    References
    ----------
    Eraslan et al. 2019, doi:10.1038/s41467-018-07931-2.
    """
    return run_peer("dca", counts, python=python, seed=seed).rates


def cellmapper(counts: Any, *, python: str | os.PathLike | None = None, seed: int | None = None) -> np.ndarray:
    """Denoise with CellMapper: average over a cell's neighbours. Scale: counts, at each cell's own depth.

    Self-mapping with the tool's defaults: 30 neighbours on 50 principal components of lognorm, UMAP weights, one step.
    What is averaged is each gene's share of the cell, times the cell's library size afterwards, so cells keep their
    totals. UMAP weights leave out the cell itself.

    Parameters
    ----------
    counts
        Counts, cells x genes, dense or sparse.
    python
        Interpreter that has cellmapper; None for the one in the variable ``SCGACL_PEER_CELLMAPPER``.
    seed
        Seed of the PCA, below 2**32; None for ``scvi.settings.seed``, else 0.

    Returns
    -------
    Expected counts, cells x genes, dense float32. Cells and genes without a count stay at zero.

    Raises
    ------
    PeerUnavailable, RuntimeError, ValueError
        As :func:`magic`.

    Examples
    --------
    >>> from scgacl_scvi.evaluate.baselines import cellmapper
    >>> cellmapper(counts, python=".peers/cellmapper/bin/python").shape == counts.shape  # doctest: +SKIP
    True

    References
    ----------
    Lange 2025, doi:10.5281/zenodo.15683594.
    """
    return run_peer("cellmapper", counts, python=python, seed=seed).rates


def run_peer(
    name: str, counts: Any, *, python: str | os.PathLike | None = None, seed: int | None = None, **options: Any
) -> PeerResult:
    """Run a tool in its own interpreter, and say what it cost.

    Cells and genes without a count are not given to the tool (some refuse them) and stay at zero.

    Parameters
    ----------
    name
        ``"magic"``, ``"dca"`` or ``"cellmapper"``.
    counts
        Counts, cells x genes, dense or sparse.
    python
        Interpreter that has the tool; None for the one in the variable ``SCGACL_PEER_<NAME>``.
    seed
        Seed below 2**32; None for ``scvi.settings.seed``, else 0.
    options
        Options of the tool's adapter; for ``"magic"`` ``reversed_normalisation``.

    Returns
    -------
    Rates, version, seconds and peak memory.

    Raises
    ------
    PeerUnavailable, RuntimeError, ValueError
        As :func:`magic`.

    Examples
    --------
    >>> from scgacl_scvi.evaluate.baselines import run_peer
    >>> run_peer("dca", counts, seed=0).seconds  # doctest: +SKIP
    9.7
    """
    if name not in PEERS:
        raise ValueError(f"name: got {name!r}; choose from {sorted(PEERS)}")
    if name == "magic":
        options = {"reversed_normalisation": False, **options}
    seed = resolve_seed(seed)
    if seed >= 2**32:
        raise ValueError(f"seed: got {seed}; the tools take seeds below 2**32")
    counts = as_matrix(counts, "counts")
    check_values(counts, "counts", nonnegative=True)
    cells, genes = (np.asarray(counts.sum(axis=axis)).ravel() > 0 for axis in (1, 0))
    if not cells.any():
        raise ValueError("counts: all entries are zero; pass counts above zero")
    interpreter = _interpreter(PEERS[name], python)
    # csr_matrix, since old SciPy cannot read a csr_array
    given = sparse.csr_matrix(counts)[cells][:, genes].astype(np.float32)
    with tempfile.TemporaryDirectory(prefix=f"scgacl-{name}-") as folder:
        sparse.save_npz(os.path.join(folder, "counts.npz"), given, compressed=False)
        Path(folder, "settings.json").write_text(json.dumps({"seed": seed, **options}))
        report = _call(PEERS[name], interpreter, folder)
        found = _read_rates(name, folder, given.shape)
    rates = np.zeros(counts.shape, np.float32)
    rates[np.ix_(cells, genes)] = found
    return PeerResult(rates=rates, **report)


def _interpreter(peer: Peer, python: str | os.PathLike | None) -> str:
    source = "python"
    if python is None:
        source, python = peer.variable, os.environ.get(peer.variable)
    if not python:
        raise PeerUnavailable(
            f"{peer.name}: no interpreter is named, neither by the argument python nor by the environment variable "
            f"{peer.variable}; {_remedy(peer)}"
        )
    found = shutil.which(os.fspath(python))
    if found is None:
        raise PeerUnavailable(
            f"{peer.name}: {source} names {os.fspath(python)!r}, which is no program; {_remedy(peer)}"
        )
    return os.path.abspath(found)


def _remedy(peer: Peer) -> str:
    return "make its environment with\n" + "\n".join(f"    {command}" for command in peer.commands())


def _call(peer: Peer, interpreter: str, folder: str) -> dict[str, Any]:
    """Run the adapter on the files in ``folder`` and return its report."""
    log, report_path = Path(folder, "output.log"), Path(folder, "report.json")
    # -I: without PYTHON* variables, the user's site-packages, and the adapters' folder, whose names hide the tools'.
    command = [interpreter, "-I", str(ADAPTERS / "_child.py"), str(ADAPTERS / f"{peer.name}.py"), folder]
    environment = {key: value for key, value in os.environ.items() if key in _KEPT_VARIABLES} | {"HOME": folder}
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            ).returncode
        except OSError as error:
            raise PeerUnavailable(f"{peer.name}: {interpreter} cannot be run ({error}); {_remedy(peer)}") from error
    report = json.loads(report_path.read_text()) if report_path.exists() else {}
    if "missing" in report:
        raise PeerUnavailable(
            f"{peer.name}: {interpreter} cannot import the tool ({report['missing']}); {_remedy(peer)}"
        )
    if status != 0 or not report:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        raise RuntimeError(f"{peer.name}: crashed, {_how(status)}; its last lines were\n{tail or '(none)'}")
    return report


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return f"killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")


def _read_rates(name: str, folder: str, shape: tuple[int, int]) -> np.ndarray:
    try:
        rates = np.load(os.path.join(folder, "rates.npy"), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{name}: wrote no rates that can be read ({error})") from error
    if rates.shape != shape:
        raise RuntimeError(f"{name}: returned rates of shape {rates.shape} for counts of shape {shape}")
    if not np.isfinite(rates).all():
        raise RuntimeError(f"{name}: returned NaN or infinite rates; try another seed or fewer genes")
    if rates.min() < 0:
        raise RuntimeError(f"{name}: returned negative rates, the lowest {rates.min():.3g}")
    return rates
