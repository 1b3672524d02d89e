"""The figures of the demonstration."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd

from scgacl_scvi._keys import GROUP, LAYER, TRUTH_LAYER, UMAP_IMPUTED, UMAP_RAW

from ._compare import OURS

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

    from scgacl_scvi.model import SCGACL

TRAINING, GENES, UMAP, RECOVERY = FIGURES = ("training.png", "gene_scatter.png", "umap.png", "recovery.png")

_BARS = ("pearson_dropouts", "rmse_dropouts", "rmse_all", "median_pearson_cells", "median_pearson_genes", "ari")
_N_PCS = 50


def embed(adata: "AnnData", seed: int) -> None:
    """Put UMAP coordinates of the cells before and after imputation into ``adata.obsm``."""
    import scanpy as sc
    from anndata import AnnData

    from scgacl_scvi.evaluate import lognorm

    for key, values in ((UMAP_RAW, lognorm(adata.X)), (UMAP_IMPUTED, adata.layers[LAYER])):
        cells = AnnData(values)
        sc.pp.pca(cells, n_comps=min(_N_PCS, min(cells.shape) - 1), random_state=seed)
        sc.pp.neighbors(cells, random_state=seed)
        sc.tl.umap(cells, random_state=seed)
        adata.obsm[key] = cells.obsm["X_umap"]


@contextmanager
def drawn(
    adata: "AnnData", model: "SCGACL", table: pd.DataFrame, genes: tuple[str, str]
) -> Iterator[dict[str, "Figure"]]:
    """Give the name of each file -> its figure; figures are closed in the end."""
    import matplotlib.pyplot as plt

    from scgacl_scvi import pl

    figures = {}
    try:
        n_epochs = len(next(iter(model.history.values())))
        phases = {name: (start, min(end, n_epochs)) for name, (start, end) in model.phases_.items() if start < n_epochs}
        figures[TRAINING] = pl.training(model.history, phases=phases)[0].figure
        axes = pl.gene_scatter_before_after(adata, *genes, layer=LAYER, truth_layer=TRUTH_LAYER, color=GROUP)
        figures[GENES] = axes[0].figure
        axes = pl.embedding_before_after(adata.obsm[UMAP_RAW], adata.obsm[UMAP_IMPUTED], adata.obs[GROUP])
        figures[UMAP] = axes[0].figure
        figures[RECOVERY] = _bars(table)
        yield figures
    finally:
        for figure in figures.values():
            plt.close(figure)


def _bars(table: pd.DataFrame) -> "Figure":
    """Draw bars in two rows: in one, the page would shrink them beyond reading."""
    import matplotlib.pyplot as plt

    from scgacl_scvi import pl

    figure, axes = plt.subplots(2, len(_BARS) // 2, figsize=(10.5, 4.8), layout="constrained")
    pl.recovery_bars(table, _BARS, highlight=OURS, ax=axes)
    axes[1, 0].tick_params(labelleft=True)
    return figure
