"""Simulate, train, impute, compare, write."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgacl_scvi._io import forget_registration, replacing, write_anndata
from scgacl_scvi._keys import LAYER

from ._compare import comparison, informative_pair
from ._figures import FIGURES, drawn, embed
from ._words import print_table, sections, verdict

if TYPE_CHECKING:
    from anndata import AnnData

DATA, REPORT = "demo.h5ad", "report.html"
_DPI = 150


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration found, and where it wrote."""

    table: pd.DataFrame
    """One row per method (ours first), one column per measure."""
    verdict: str
    """The table in words."""
    genes: tuple[str, str]
    """Genes of the scatter plot."""
    paths: dict[str, Path]
    """Name of each file -> its path."""


def run_demo(folder: str | Path = "demo", seed: int = 0, *, progress: bool = True) -> DemoResult:
    """Impute :func:`scgacl_scvi.datasets.demo`, without its labels, and compare the result with the truth.

    Prints a table of the recovery beside controls. Writes ``demo.h5ad``, ``training.png``, ``gene_scatter.png``,
    ``umap.png``, ``recovery.png`` and ``report.html``; files of these names are replaced, each in one step, when all
    are written.

    Parameters
    ----------
    folder
        Where to write; made if it is not there.
    seed
        Of the simulation, the model, k-means and UMAP. ``scvi.settings.seed``, the generators of Python, numpy and
        torch, and torch's number of threads are put back afterwards.
    progress
        Whether to show scvi-tools' progress bar.

    Returns
    -------
    The numbers and paths.

    Raises
    ------
    ValueError
        If the seed is negative.
    OSError
        If the folder cannot be written to.

    Examples
    --------
    >>> from scgacl_scvi._demo import run_demo
    >>> run_demo("demo").table.loc["scgacl", "rmse_dropouts"]  # doctest: +SKIP
    """
    from scgacl_scvi.datasets import demo

    return demonstrate(demo(seed), folder, seed, progress=progress)


def demonstrate(
    adata: "AnnData", folder: str | Path, seed: int, *, max_epochs: int | None = None, progress: bool = True
) -> DemoResult:
    """Do as :func:`run_demo` on other data of :func:`scgacl_scvi.datasets.simulate_splat`; they are changed."""
    from scgacl_scvi.evaluate import write_page
    from scgacl_scvi.model import SCGACL

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _seeded(seed), _one_thread():
        before = set(adata.obs), set(adata.uns)
        SCGACL.setup_anndata(adata)
        model = SCGACL(adata)
        model.train(max_epochs=max_epochs, enable_progress_bar=progress)
        model.get_imputed_expression(layer_key=LAYER)
        forget_registration(adata, *before)
        table = comparison(adata, seed)
        embed(adata, seed)
    words = verdict(table)
    print_table(table, words, seed)

    genes = informative_pair(adata)
    paths = {name: folder / name for name in (DATA, *FIGURES, REPORT)}
    with drawn(adata, model, table, genes) as figures, ExitStack() as stack:
        temporary = {name: stack.enter_context(replacing(path)) for name, path in paths.items()}
        write_anndata(adata, temporary[DATA])
        for name, figure in figures.items():
            figure.savefig(temporary[name], dpi=_DPI, bbox_inches="tight", facecolor="white")
        write_page(
            temporary[REPORT],
            title="scGACL on simulated dropout",
            summary=words,
            sections=sections(adata, model, table, genes, figures, seed),
        )
    print(f"Wrote {', '.join(paths)} to {folder}.", flush=True)
    return DemoResult(table, words, genes, paths)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """``scvi.settings.seed`` and every global generator: set inside, as they were after."""
    from scvi import settings

    from scgacl_scvi.model._seed import seeded

    seed_before, python, legacy = settings.seed, random.getstate(), np.random.get_state()
    with seeded(seed):
        settings.seed = seed
        try:
            yield
        finally:
            settings.seed = seed_before  # seeds the generators, too: first
            random.setstate(python)
            np.random.set_state(legacy)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread: for matrices this small more of them gain little, and on a busy machine cost minutes."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
