"""Molecular cross-validation."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from scgacl_scvi.datasets import thin

from ._heldout import cp10k_mse, poisson_loss
from ._matrix import Matrix, as_matrix, check_values
from .baselines import gene_mean, no_imputation

REFERENCE = "gene mean"
"""The control with a gain of 0."""

NO_DENOISING = "no denoising"
"""The control with an MSE gain of 0."""


def molecular_cv(
    counts: Any, methods: Mapping[str, Callable[[Matrix], Any]], fraction: float = 0.9, seed: int = 0
) -> pd.DataFrame:
    """Score methods by how well they predict held-out molecules.

    All methods and three controls (``"no denoising"``, ``"gene mean"``, ``"all zeros"``) see the same split. Genes
    without a training count are dropped. Rates are brought to the depth of the held-out molecules,
    ``q = rates * test.sum() / train.sum()``.

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
    One row per method, controls last: ``method``; ``loss``, Poisson loss per entry in nats, lower is better;
    ``gain_nats``, gain over the gene mean in nats per held-out molecule; ``mse_gain``, 1 - MSE / MSE(no denoising) on
    the log1p_cp10k scale as Open Problems; ``seconds`` the method took. ``attrs`` holds ``seed``, ``fraction``,
    ``n_genes`` and ``n_test_molecules``.

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
    ['add one', 'no denoising', 'gene mean', 'all zeros']

    References
    ----------
    Batson, Royer & Webber 2019, doi:10.1101/786269; Open Problems, task denoising.
    """
    controls = {NO_DENOISING: no_imputation, REFERENCE: gene_mean, "all zeros": lambda train: train * 0}
    taken = sorted(set(methods) & set(controls))
    if taken:
        raise ValueError(f"methods: {taken} are names of controls, which are always included; choose other names")
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
    depth_ratio = molecules / float(train.sum(dtype=np.float64))

    rows = []
    for name, method in {**methods, **controls}.items():
        given = train.copy()  # a method that writes into its input must not change the others' data
        start = perf_counter()
        rates = method(given)
        seconds = perf_counter() - start
        try:
            loss, mse = poisson_loss(rates, test, depth_ratio=depth_ratio), cp10k_mse(rates, test)
        except ValueError as error:
            raise ValueError(f"methods: {name!r} returned rates that cannot be scored; {error}") from error
        rows.append({"method": name, "loss": loss, "mse": mse, "seconds": seconds})
    table = pd.DataFrame(rows).set_index("method")
    table["gain_nats"] = (table.loc[REFERENCE, "loss"] - table["loss"]) * test.shape[0] * test.shape[1] / molecules
    table["mse_gain"] = 1 - table["mse"] / table.loc[NO_DENOISING, "mse"]
    table = table.reset_index()[["method", "loss", "gain_nats", "mse_gain", "seconds"]]
    table.attrs = {"seed": seed, "fraction": fraction, "n_genes": int(kept.sum()), "n_test_molecules": int(molecules)}
    return table
