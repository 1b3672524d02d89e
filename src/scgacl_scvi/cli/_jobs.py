"""What the commands do; heavy imports live here."""

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer
from scipy import sparse

from scgacl_scvi._io import (
    check_input,
    check_output,
    forget_registration,
    preprocess,
    read_anndata,
    replacing,
    write_anndata,
    write_table,
)
from scgacl_scvi._io._write import ANNDATA_SUFFIXES, MODEL_MARKERS, TABLE_SUFFIXES, ZARR_MARKERS
from scgacl_scvi._keys import LAYER

if TYPE_CHECKING:
    from anndata import AnnData

    from scgacl_scvi.model import SCGACL


def preprocess_file(counts: Path, out: Path, *, overwrite: bool, **options: Any) -> None:
    """Read and prepare counts, write an AnnData."""
    _check_outputs(counts, overwrite, out)
    adata = preprocess(counts, say=typer.echo, **options)
    with replacing(out) as temporary:
        write_anndata(adata, temporary)
    typer.echo(f"Wrote {adata.n_obs:,} cells x {adata.n_vars:,} genes to {out}.")


def impute_file(
    data: Path,
    out: Path,
    *,
    csv: Path | None,
    save_model: Path | None,
    overwrite: bool,
    seed: int,
    setup: dict[str, Any],
    model: dict[str, Any],
    train: dict[str, Any],
    values: dict[str, Any],
) -> None:
    """Train, impute, and write everything or nothing."""
    _check_outputs(data, overwrite, out, csv, save_model)
    adata = read_anndata(data)
    _check_columns(adata, data, setup)
    start = time.perf_counter()
    with quiet():
        from scvi import settings

        from scgacl_scvi.model import SCGACL

        settings.seed = seed
        before = set(adata.obs), set(adata.uns)
        SCGACL.setup_anndata(adata, **setup)
        fitted = SCGACL(adata, **model)
        fitted.train(enable_progress_bar=sys.stderr.isatty(), **train)
        frame = fitted.get_imputed_expression(layer_key=LAYER, **values)
        with ExitStack() as stack:
            # The last one entered is put in place first; out is the first: it appears when all is written.
            targets = {
                path: stack.enter_context(replacing(path)) for path in (out, csv, save_model) if path is not None
            }
            if save_model is not None:
                fitted.save(str(targets[save_model]))
            if csv is not None:
                write_table(frame, targets[csv])
            summary = _summary(fitted, setup, model, time.perf_counter() - start)
            forget_registration(adata, *before)
            write_anndata(adata, targets[out])
    _print_table(summary | {"written": ", ".join(map(str, targets))})


def demo_in(folder: Path, seed: int) -> None:
    """Run the demonstration."""
    import matplotlib as mpl

    mpl.use("Agg")
    with quiet():
        from scgacl_scvi._demo import run_demo

        run_demo(folder, seed, progress=sys.stderr.isatty())


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices, seeds and products, and without warnings that tell a user nothing."""
    import lightning.pytorch  # noqa: F401 - it sets its own level when it is imported

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", module="lightning")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _check_outputs(data: Path, overwrite: bool, out: Path, csv: Path | None = None, folder: Path | None = None) -> None:
    """Everything that can be wrong with the places to write to, before any work."""
    check_input(data)
    given = [path.resolve() for path in (out, csv, folder) if path is not None]
    if len(set(given)) < len(given):
        raise ValueError("Two results cannot go to one place; give each its own name.")
    if out.resolve() == data.resolve() and not overwrite:
        raise FileExistsError(f"{out} is the input, which is not changed; give another name, or `--overwrite`.")
    check_output(out, overwrite=overwrite, suffixes=ANNDATA_SUFFIXES, markers=ZARR_MARKERS)
    if csv is not None:
        check_output(csv, overwrite=overwrite, suffixes=TABLE_SUFFIXES)
    if folder is not None:
        check_output(folder, overwrite=overwrite, markers=MODEL_MARKERS)


def _check_columns(adata: "AnnData", data: Path, setup: dict[str, Any]) -> None:
    for option, container in (("labels_key", "obs"), ("batch_key", "obs"), ("stratify_by", "obs"), ("layer", "layers")):
        have = list(getattr(adata, container).keys())
        known = ", ".join(map(repr, have)) or "none"
        if setup[option] is not None and setup[option] not in have:
            raise ValueError(f"`{option}={setup[option]}` is not in {container} of {data}; it has {known}.")


def _summary(fitted: "SCGACL", setup: dict[str, Any], model: dict[str, Any], seconds: float) -> dict[str, str]:
    """Say what was chosen."""
    choice = fitted.likelihood_choice_
    likelihood = fitted.module.gene_likelihood
    if choice is not None:
        likelihood += f" (excess zeros {choice['excess_zero_share']:.0%}; zinb above {choice['threshold']:.0%})"
    elif model["preset"] == "paper":
        likelihood += " (as published)"
    how = "as told" if model["n_clusters"] else "one per label" if setup["labels_key"] else "by BIC"
    epochs = len(next(iter(fitted.history.values())))
    counts = fitted.adata.X if setup["layer"] is None else fitted.adata.layers[setup["layer"]]
    n_seen, n_shown = (
        x.count_nonzero() if sparse.issparse(x) else np.count_nonzero(x) for x in (counts, fitted.adata.layers[LAYER])
    )
    n_filled = n_shown - n_seen
    n_zeros = fitted.adata.n_obs * fitted.adata.n_vars - n_seen
    best = fitted.best_epoch_
    phases = {name: end - start for name, (start, end) in fitted.phases_.items()}
    return {
        "cells x genes": f"{fitted.adata.n_obs:,} x {fitted.adata.n_vars:,}",
        "likelihood": likelihood,
        "clusters": f"{int(fitted.module.prior.active.sum())} ({how})",
        "epochs": f"{epochs} of {sum(phases.values())} ({', '.join(f'{name} {n}' for name, n in phases.items())})",
        "best epoch": "none (no validation cells)" if best is None else f"{best + 1}",
        "zeros filled": f"{n_filled / max(n_zeros, 1):.1%} of {n_zeros:,}",
        "seconds": f"{seconds:.0f}",
    }


def _print_table(rows: dict[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
