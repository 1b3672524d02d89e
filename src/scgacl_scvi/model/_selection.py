"""Which cells and genes a getter was asked for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scvi import REGISTRY_KEYS
from torch import Tensor

from scgacl_scvi._compat import validate_adata_dataloader_input

from ._mudata import expression_of

BATCH_SIZE = 512


@dataclass(frozen=True)
class Selection:
    """Cells and genes of one call.

    Attributes
    ----------
    loader
        Batches of the cells.
    adata
        The user's data; None for a data loader.
    expression
        The AnnData that results of it belong to: ``adata``, or its modality with the expression.
    rows
        Numbers of the cells; None for a data loader, whose length is not known.
    cell_names, gene_names
        Names of the cells (None for a data loader) and genes.
    genes
        Positions of the genes; None for all.
    """

    loader: Iterator[dict[str, Tensor]]
    adata: AnnData | MuData | None
    expression: AnnData | None
    rows: np.ndarray | None
    cell_names: pd.Index | None
    gene_names: pd.Index
    genes: np.ndarray | None

    @property
    def n_total(self) -> int | None:
        """Number of cells of the data, asked for or not."""
        return None if self.adata is None else self.adata.n_obs

    def of_genes(self, block: Any) -> Any:
        """The genes' columns of ... x genes."""
        return block if self.genes is None else block[..., self.genes]


def select(
    model,
    adata: AnnData | MuData | None,
    indices: Sequence[int] | None,
    gene_list,
    batch_size: int | None,
    dataloader=None,
) -> Selection:
    """What a getter's arguments ask for; raises where they cannot be met."""
    validate_adata_dataloader_input(model, adata, dataloader)
    rows, cell_names, expression = None, None, None
    if dataloader is None:
        adata = model._validate_anndata(adata)
        expression = expression_of(model, adata)
        rows = np.arange(adata.n_obs) if indices is None else as_rows(indices, adata.n_obs)
        dataloader = model._make_data_loader(adata=adata, indices=rows, batch_size=batch_size or BATCH_SIZE)
        cell_names = adata.obs_names[rows]
    names = gene_names(model)
    genes = None if gene_list is None else gene_positions(names, gene_list)
    return Selection(dataloader, adata, expression, rows, cell_names, names if genes is None else names[genes], genes)


def gene_names(model) -> pd.Index:
    """Names of the modelled genes, from the registry."""
    state = model.registry_["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    return pd.Index(np.asarray(state["column_names"]).astype(str))


def as_rows(indices: Sequence[int], n_cells: int) -> np.ndarray:
    """Row numbers from integers or a mask."""
    indices = np.asarray(indices)
    if indices.dtype == bool:
        if len(indices) != n_cells:
            raise ValueError(f"`indices` is a mask of {len(indices)} values for {n_cells} cells.")
        return np.flatnonzero(indices)
    if len(indices) and (indices.min() < -n_cells or indices.max() >= n_cells):
        raise ValueError(f"`indices` goes from {indices.min()} to {indices.max()}, but there are {n_cells} cells.")
    return indices.astype(np.int64) % max(n_cells, 1)


def gene_positions(var_names: pd.Index, gene_list: Sequence[str]) -> np.ndarray:
    """Positions of the genes asked for; a gene that the model does not have raises."""
    gene_list = [gene_list] if isinstance(gene_list, str) else list(gene_list)
    positions = var_names.get_indexer(gene_list)
    if (positions < 0).any():
        unknown = [gene for gene, position in zip(gene_list, positions, strict=True) if position < 0]
        raise KeyError(
            f"`gene_list`: {len(unknown)} gene(s) are not in the model, e.g. {unknown[:5]}; only genes of the "
            "registered data are modelled."
        )
    return positions
