"""Molecular cross-validation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from scgacl_scvi.datasets import thin

from ._accounting import Usage, measured
from ._heldout import cp10k_mse, poisson_loss, poisson_loss_as_coded
from ._leak import LIMIT, leak_z
from ._matrix import Matrix, as_matrix, check_values
from .baselines import all_zeros, gene_mean, no_imputation

REFERENCE = "gene mean"
"""The control with a gain of 0."""

NO_DENOISING = "no denoising"
"""The control with scores of 0."""

LEAK = "held-out counts (a leak)"
"""The control that has to be caught, and has scores of 1."""

Method = Callable[[Matrix], Any]

COLUMNS = [
    *("method", "loss", "gain_nats", "score", "loss_as_coded", "score_as_coded", "mse", "mse_gain"),
    *("leak_z", "leaks", "seconds", "cpu_seconds", "peak_mb", "note"),
]


def molecular_cv(counts: Any, methods: Mapping[str, Method], fraction: float = 0.9, seed: int = 0) -> pd.DataFrame:
    """Score methods by how well they predict held-out molecules.

    All methods and four controls see the same split: ``"no denoising"``, ``"gene mean"``, ``"all zeros"`` and
    ``"held-out counts (a leak)"``. Genes without a training count are dropped. Rates are brought to the depth of the
    held-out molecules, ``q = rates * test.sum() / train.sum()``.

    Use it for UMI counts only: on data with dropout it rewards leaving the zeros, and a method that keeps zeros is
    scored by the 1e-6 in the logarithm.

    Parameters
    ----------
    counts
        Molecule counts (whole numbers), cells x genes, dense or sparse.
    methods
        Name -> function of the training counts (cells x kept genes, float32, CSR if ``counts`` is sparse) that returns
        expected counts at the depth of the training molecules, same shape, dense or sparse.
    fraction
        Share of the molecules to train on.
    seed
        Seed of the split.

    Returns
    -------
    One row per method, controls last. Columns:

    - ``method``
    - ``loss``: :func:`poisson_loss`, nats per entry; ``gain_nats``: gain over the gene mean in nats per held-out
      molecule, the column to read; ``score``: the loss as Open Problems scales it, 0 for no denoising and 1 for the
      held-out counts themselves
    - ``loss_as_coded``, ``score_as_coded``: the same for :func:`poisson_loss_as_coded`, which no one should tune on
    - ``mse``: :func:`cp10k_mse`; ``mse_gain``: 1 - MSE / MSE(no denoising), again the scale of Open Problems
    - ``leak_z``, ``leaks``: :func:`leak_z`, and whether it says that the method saw the held-out molecules
    - ``seconds``, ``cpu_seconds``, ``peak_mb`` (10^6 bytes above the start): see :func:`measured`
    - ``note``: why a method could not run (:class:`baselines.PeerUnavailable`), its figures being NaN; else empty

    ``attrs`` holds ``seed``, ``fraction``, ``n_genes`` and ``n_test_molecules``.

    Raises
    ------
    ValueError
        If ``counts`` are not whole, a method has the name of a control, or its result has another shape, is negative
        or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from scgacl_scvi.evaluate import molecular_cv
    >>> counts = np.random.default_rng(0).poisson(2.0, (50, 20))
    >>> molecular_cv(counts, {"add one": lambda train: train + 1})["method"].tolist()
    ['add one', 'no denoising', 'gene mean', 'all zeros', 'held-out counts (a leak)']

    References
    ----------
    Batson, Royer & Webber 2019, doi:10.1101/786269; Open Problems, task denoising.
    """
    split = _split(counts, fraction, seed)
    controls: dict[str, Method] = {
        NO_DENOISING: no_imputation,
        REFERENCE: gene_mean,
        "all zeros": all_zeros,
        LEAK: lambda train: split.test / split.depth_ratio,
    }
    taken = sorted(set(methods) & set(controls))
    if taken:
        raise ValueError(f"methods: {taken} are names of controls, which are always included; choose other names")
    rows = [{"method": name, **_row(name, method, split)} for name, method in {**methods, **controls}.items()]
    table = pd.DataFrame(rows).set_index("method")

    n_entries, molecules = math.prod(split.test.shape), split.molecules
    table["gain_nats"] = (table.loc[REFERENCE, "loss"] - table["loss"]) * n_entries / molecules
    table["mse_gain"] = 1 - table["mse"] / table.loc[NO_DENOISING, "mse"]
    for loss, score in (("loss", "score"), ("loss_as_coded", "score_as_coded")):
        worst, best = table.loc[NO_DENOISING, loss], table.loc[LEAK, loss]
        table[score] = (worst - table[loss]) / (worst - best)
    table["leaks"] = table["leak_z"] < LIMIT
    table = table.reset_index()[COLUMNS]
    n_genes = split.test.shape[1]
    table.attrs = {"seed": seed, "fraction": fraction, "n_genes": n_genes, "n_test_molecules": int(molecules)}
    return table


@dataclass(frozen=True)
class _Split:
    """Training and held-out molecules of the genes that have a training count."""

    train: Matrix
    test: Matrix
    molecules: float
    depth_ratio: float


def _split(counts: Any, fraction: float, seed: int) -> _Split:
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: got {fraction!r}; pass a share between 0 and 1, such as 0.9")
    counts = as_matrix(counts, "counts")
    check_values(counts, "counts", nonnegative=True)
    train, test = (part.astype(np.float32) for part in thin(counts, fraction, seed))
    kept = np.asarray(train.sum(axis=0)).ravel() > 0
    if not kept.any():
        raise ValueError("counts: no training molecule was drawn; pass deeper counts or a larger fraction")
    train, test = train[:, kept], test[:, kept]
    molecules = float(test.sum(dtype=np.float64))
    if molecules == 0:
        raise ValueError("counts: no molecule was held out; pass deeper counts or a smaller fraction")
    return _Split(train, test, molecules, molecules / float(train.sum(dtype=np.float64)))


def _row(name: str, method: Method, split: _Split) -> dict[str, Any]:
    """Losses of one method, and what it took."""
    from .baselines import PeerUnavailable

    given = split.train.copy()  # a method that writes into its input must not change the others' data
    note, usage = "", Usage(math.nan, math.nan, math.nan)
    losses = dict.fromkeys(("loss", "loss_as_coded", "mse", "leak_z"), math.nan)
    try:
        rates, usage = measured(method, given)
    except PeerUnavailable as reason:  # a table of the others is worth more than none
        note = str(reason)
    else:
        try:
            losses = {
                "loss": poisson_loss(rates, split.test, depth_ratio=split.depth_ratio),
                "loss_as_coded": poisson_loss_as_coded(rates, split.test, depth_ratio=split.depth_ratio),
                "mse": cp10k_mse(rates, split.test),
                "leak_z": leak_z(rates, split.test),
            }
        except ValueError as error:
            raise ValueError(f"methods: {name!r} returned rates that cannot be scored; {error}") from error
    return {
        **losses,
        "seconds": usage.seconds,
        "cpu_seconds": usage.cpu_seconds,
        "peak_mb": usage.peak_bytes / 1e6,
        "note": note,
    }
