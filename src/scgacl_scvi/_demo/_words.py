"""What the demonstration says: every sentence about who wins is made from the numbers."""

import platform
import textwrap
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgacl_scvi._keys import DROPOUT_LAYER, GROUP, TRUTH_LAYER

from ._compare import GENE_MEAN, MEASURES, NOTHING, OURS, TYPE_MEAN, Measure, against
from ._figures import GENES, RECOVERY, TRAINING, UMAP

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

    from scgacl_scvi.evaluate import Section
    from scgacl_scvi.model import SCGACL

_PACKAGES = ("scgacl-scvi", "scvi-tools", "torch", "scanpy", "anndata", "numpy")


def verdict(table: pd.DataFrame) -> str:
    """Put the table into words: a paragraph for ours and one for each rival, with every measure that ours loses."""
    ours = table.loc[OURS]
    return "\n\n".join(
        [
            f"Without labels, {OURS} predicts the values that dropout hid with a Pearson correlation of "
            f"{ours['pearson_dropouts']:.3f} and a root mean squared error of {ours['rmse_dropouts']:.3f} (lognorm). "
            f"It also fills {ours['true_zeros_filled']:.0%} of the zeros that are true.",
            *(_against_in_words(table, rival) for rival in (NOTHING, GENE_MEAN, TYPE_MEAN)),
        ]
    )


def _against_in_words(table: pd.DataFrame, rival: str) -> str:
    outcome = against(table, rival)
    text = f"Against {rival}: better in {len(outcome.better)} of {len(MEASURES)} measures"
    if outcome.equal:
        text += f", equal in {len(outcome.equal)}"
    if not outcome.worse:
        return text + "."
    lost = "; ".join(
        f"{MEASURES[key].name} ({table.loc[OURS, key]:.3f} against {table.loc[rival, key]:.3f})"
        for key in outcome.worse
    )
    return f"{text}, worse in {len(outcome.worse)}: {lost}."


def print_table(table: pd.DataFrame, words: str, seed: int) -> None:
    """Print the comparison, measures x methods, and what it says."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    grid = Table(
        box=SIMPLE_HEAD, title=f"Recovery of the truth, seed {seed} (* the best of its row)", title_justify="left"
    )
    grid.add_column("measure", no_wrap=True)
    grid.add_column("better", no_wrap=True)
    for name in table.index:
        grid.add_column(textwrap.fill(name, 10), justify="right", style="bold" if name == OURS else None, no_wrap=True)
    for key, measure in MEASURES.items():
        cells = [text if text.endswith("*") else f"{text} " for text in _marked(table[key], measure)]
        grid.add_row(measure.name, measure.better, *cells)
    console = Console()
    console.print(grid)
    console.print(words.replace("\n\n", "\n"), highlight=False)


def sections(
    adata: "AnnData",
    model: "SCGACL",
    table: pd.DataFrame,
    genes: tuple[str, str],
    figures: Mapping[str, "Figure"],
    seed: int,
) -> list["Section"]:
    """Make the sections of the page, in reading order."""
    from scgacl_scvi.evaluate import Section

    return [
        Section("What was simulated", _simulation(adata, seed)),
        Section("How well the truth is recovered", _HOW, table=_readable(table), caption=_HOW_CAPTION),
        Section(
            "The same as a figure",
            figure=figures[RECOVERY],
            caption=f"{OURS} in colour, controls in grey. The type mean uses the true labels.",
        ),
        Section("Training", _training(model), figure=figures[TRAINING], caption=_TRAINING_CAPTION),
        Section(
            "Two genes",
            f"{genes[0]} and {genes[1]} have the strongest correlation of all pairs in the truth, among genes that "
            "dropout hides in 30 to 70 % of the cells. The pair was found by that rule.",
            figure=figures[GENES],
            caption=_GENES_CAPTION,
        ),
        Section("Cells before and after", figure=figures[UMAP], caption=_UMAP_CAPTION),
        Section("What this does not show", _LIMITS),
    ]


_HOW = (
    "Imputed values and truth are compared on the lognorm scale. Dropouts are the entries that are zero in the counts "
    "and not in the truth. The controls: the counts as they are; the gene's mean of non-zero values in place of each "
    "zero; the same within each true type. The last one is told what the others have to find."
)
_HOW_CAPTION = (
    "* marks the best of a row. ARI: agreement of k-means clusters on 50 principal components with the true types; 1 "
    "is perfect, 0 is chance. True zeros filled: share of the entries without a true count that got one. Variance in "
    "types: variance around the mean of the type, as a share of the truth's, averaged over genes; below 1 is "
    "smoothed, above 1 is noise."
)
_TRAINING_CAPTION = (
    "Losses by epoch; the phases are marked. Held-out molecules of validation cells decide which epoch is kept."
)
_GENES_CAPTION = (
    "One point per cell, coloured by true type: counts (lognorm), imputed values, truth. Compare r after imputation "
    "with r of the truth: a larger one is correlation that imputation added. Straight lines of points are filled zeros "
    "that got about the same value in all cells of a type."
)
_UMAP_CAPTION = (
    "UMAP on 50 principal components, coloured by the true types, which the model was not given. Distances between "
    "groups in a UMAP mean little: read the ARI in the table."
)
_LIMITS = (
    "One simulation and one seed: differences in the third decimal are noise. The simulation follows the kind of "
    "dropout that the model assumes, which real data need not do. Imputed values are means: they are for looking, "
    "clustering and plotting, not for tests of differential expression or correlation, which they make look more "
    "certain than the counts allow."
)


def _simulation(adata: "AnnData", seed: int) -> str:
    n_zeros = int(np.prod(adata.shape)) - adata.X.count_nonzero()
    n_hidden = int(adata.layers[DROPOUT_LAYER].sum())
    types = adata.obs[GROUP].value_counts()
    sizes = ", ".join(f"{name} {n}" for name, n in types.items())
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)])
    return (
        f"{adata.n_obs:,} cells of {len(types)} types ({sizes}) and {adata.n_vars:,} genes, drawn from the Splat model "
        f"(gamma-Poisson counts with dropout that falls with expression), seed {seed}. "
        f"{n_zeros / np.prod(adata.shape):.0%} of the entries are zero. Dropout hides "
        f"{n_hidden / adata.layers[TRUTH_LAYER].count_nonzero():.0%} of the true counts and makes "
        f"{n_hidden / max(n_zeros, 1):.0%} of the zeros; the other zeros are true. The types were not shown to the "
        f"model.\n\nVersions: {versions}."
    )


def _training(model: "SCGACL") -> str:
    choice, best = model.likelihood_choice_, model.best_epoch_
    text = (
        f"The likelihood was chosen by the data: {model.module.gene_likelihood}, because "
        f"{choice['excess_zero_share']:.0%} of the zeros are more than a negative binomial explains (zinb above "
        f"{choice['threshold']:.0%}). The prior has {int(model.module.prior.active.sum())} clusters, found by BIC. "
        f"{len(next(iter(model.history.values())))} epochs were run"
    )
    return text + ("." if best is None else f"; the weights are those of epoch {best + 1}.")


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Turn the table round: measures x methods, as text with the best of each row marked."""
    return pd.DataFrame(
        {f"{measure.name} ({measure.better})": _marked(table[key], measure) for key, measure in MEASURES.items()},
        index=table.index,
    ).T.rename_axis("measure (better)")


def _marked(values: pd.Series, measure: Measure) -> list[str]:
    best = min(map(measure.badness, values))
    return [f"{value:.3f}{'*' if measure.badness(value) == best else ''}" for value in values]
