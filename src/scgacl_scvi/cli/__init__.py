"""The ``scgacl`` command. Only typer is imported here: help must come at once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ._errors import one_line_errors

app = typer.Typer(
    name="scgacl",
    help="Impute dropout in single-cell RNA-seq without smoothing cells together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Genes = StrEnum("Genes", ["auto", "rows", "columns"])
Fractional = StrEnum("Fractional", {"raise_": "raise", "round": "round"})
InputScale = StrEnum("InputScale", ["counts", "lognorm"])
Preset = StrEnum("Preset", ["default", "paper"])
Policy = StrEnum("Policy", ["impute", "denoise"])
Scale = StrEnum("Scale", ["lognorm", "cp10k", "log1p_cp10k", "counts"])

OVERWRITE = typer.Option("--overwrite/--no-overwrite", help="Replace results that exist already.")
DEBUG = typer.Option("--debug", help="Show where an error comes from.")
LAYER = typer.Option(help="Layer of the raw counts.", show_default="X")
FRACTIONAL = typer.Option(help="Fractional counts: an error, or rounded (corrected counts of SoupX, RSEM).")


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"scgacl-scvi {version('scgacl-scvi')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
@one_line_errors
def preprocess(
    counts: Annotated[
        Path,
        typer.Argument(
            metavar="COUNTS",
            help="Raw counts: csv, tsv or txt (each also .gz), h5ad, zarr, loom, 10x h5, or a 10x folder.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="AnnData to write, .h5ad or .zarr.")],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Text file with the type of each cell, for obs['cell_type']: two columns (cell, label) with a header, "
            "matched by name; or a single column in the cells' order."
        ),
    ] = None,
    genes: Annotated[
        Genes,
        typer.Option(
            help="Where a text table has its genes. auto: as labels, row numbers or the kind of names tell; it says "
            "which and why, and asks where there is doubt."
        ),
    ] = Genes.auto,
    layer: Annotated[str | None, LAYER] = None,
    n_top_genes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Keep so many most variable genes; 0 keeps all. Ranked on the counts by scanpy's "
            "highly_variable_genes with the 'pearson_residuals' flavour.",
        ),
    ] = 5000,
    min_cells: Annotated[int, typer.Option(min=1, help="Drop genes that fewer cells have a count of.")] = 1,
    fractional: Annotated[Fractional, FRACTIONAL] = Fractional.raise_,
    overwrite: Annotated[bool, OVERWRITE] = False,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """Make an AnnData of raw counts, ready to impute.

    Cells and genes without any count are dropped; X of the result holds raw counts.
    """
    from ._jobs import preprocess_file

    preprocess_file(
        counts,
        out,
        overwrite=overwrite,
        labels=labels,
        genes=genes.value,
        layer=layer,
        n_top_genes=n_top_genes,
        min_cells=min_cells,
        fractional=fractional.value,
    )


@app.command()
@one_line_errors
def impute(
    data: Annotated[Path, typer.Argument(metavar="IN", help="AnnData with raw counts, .h5ad or .zarr; never changed.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="AnnData to write, .h5ad or .zarr: IN and layers['scgacl'].")
    ],
    labels_key: Annotated[
        str | None, typer.Option(help="Column of obs with cell types, which guide the clusters softly.")
    ] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with batches.")] = None,
    stratify_by: Annotated[
        str | None, typer.Option(help="Column of obs with conditions that are to lend nothing to each other.")
    ] = None,
    layer: Annotated[str | None, LAYER] = None,
    fractional: Annotated[Fractional, FRACTIONAL] = Fractional.raise_,
    input_scale: Annotated[
        InputScale, typer.Option(help="lognorm: the matrix is log-normalised already, and its counts are lost.")
    ] = InputScale.counts,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all random numbers.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, mps, ...")] = "auto",
    preset: Annotated[Preset, typer.Option(help="paper: the published procedure.")] = Preset.default,
    n_clusters: Annotated[
        int | None, typer.Option(min=1, help="Clusters of the prior.", show_default="number of labels, or by BIC")
    ] = None,
    policy: Annotated[
        Policy,
        typer.Option(help="impute: observed values kept, dropouts filled. denoise: the posterior mean everywhere."),
    ] = Policy.impute,
    scale: Annotated[
        Scale,
        typer.Option(
            help="lognorm: log1p of counts at the median library size; cp10k: counts per 10,000; log1p_cp10k: its "
            "log1p; counts: at the cell's own depth."
        ),
    ] = Scale.lognorm,
    max_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of all phases together.", show_default="by the number of cells")
    ] = None,
    save_model: Annotated[Path | None, typer.Option(metavar="DIR", help="Save the trained model there.")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the imputed matrix as text, too (.csv or .csv.gz): cells x genes, genes in the header, cell "
            "names in the first column.",
        ),
    ] = None,
    overwrite: Annotated[bool, OVERWRITE] = False,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """Train on the counts, and write the imputed values as layers['scgacl'].

    How they were made stands in uns['scgacl']. On a busy machine, OMP_NUM_THREADS=1 can be many times faster.
    """
    from ._jobs import impute_file

    impute_file(
        data,
        out,
        csv=csv,
        save_model=save_model,
        overwrite=overwrite,
        seed=seed,
        setup={
            "labels_key": labels_key,
            "batch_key": batch_key,
            "stratify_by": stratify_by,
            "layer": layer,
            "fractional": fractional.value,
            "input_scale": input_scale.value,
        },
        model={"preset": preset.value, "n_clusters": n_clusters},
        train={"max_epochs": max_epochs, "accelerator": accelerator},
        values={"policy": policy.value, "scale": scale.value},
    )


@app.command()
@one_line_errors
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to; results of an earlier run in it are replaced.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the simulation and the model.")] = 0,
    debug: Annotated[bool, DEBUG] = False,
) -> None:
    """Impute simulated data whose truth is known; print and write how well it did, beside controls."""
    from ._jobs import demo_in

    demo_in(out, seed)
