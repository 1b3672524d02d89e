"""Every key that this package reads or writes in an AnnData, a registry or a history. No other file spells one out."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from anndata import AnnData

LAYER: Final = "scgacl"
"""Layer of imputed values, written by :meth:`scgacl_scvi.SCGACL.get_imputed_expression`."""

UNS: Final = "scgacl"
"""Entry of ``adata.uns`` that says how each layer was made."""

TRUTH_LAYER: Final = "truth"
"""Layer of true counts in simulated data."""

DROPOUT_LAYER: Final = "dropout_mask"
"""Layer that marks the entries of simulated data which dropout set to zero."""

GROUP: Final = "group"
"""Column of ``adata.obs`` with the simulated cell type."""

BATCH: Final = "batch"
"""Column of ``adata.obs`` with the simulated batch."""

PATH_POSITION: Final = "path_position"
"""Column of ``adata.obs`` with the position (0 to 1) along a simulated path."""

HELDOUT: Final = "heldout_nll"
"""Metric that decides which epoch is kept; logged as ``heldout_nll_validation`` in nats per held-out molecule."""

HELDOUT_GROUP: Final = "heldout_group"
"""Entry of a training batch: the group of genes that the cell keeps from the first phases, cells x 1."""

HELD_OUT: Final = "held_out"
"""Entry of a batch of validation cells: the molecules that training never sees (counts, cells x genes)."""

STRATUM: Final = "stratum"
"""Entry of a batch and of the registry: the group of cells that borrows from no other, cells x 1."""

STRATIFY_ARG: Final = "stratify_by"
"""Argument of ``setup_anndata``, kept in the registry: the column with the strata."""

MISSING: Final = "_scgacl_missing"
"""Column of ``adata.var``: genes of the model that this data did not measure, padded with zeros."""

MISSING_GENES: Final = "missing_genes"
"""Entry of a batch: genes that were not measured, 1 x genes; absent where all were."""

FRACTIONAL_ARG: Final = "fractional"
"""Argument of ``setup_anndata``, kept in the registry: what to do with corrected (fractional) counts."""

INPUT_SCALE_ARG: Final = "input_scale"
"""Argument of ``setup_anndata``, kept in the registry: the scale of the registered matrix."""

CELL_TYPE: Final = "cell_type"
"""Column of ``adata.obs`` into which ``scgacl preprocess`` puts the labels."""

SIMULATION: Final = "simulation"
"""Entry of ``adata.uns`` with the parameters of simulated data."""

LIBRARY_SIZE: Final = "library_size"
"""Column of ``adata.obs`` with the expected true counts of a simulated cell."""

GENE_MEAN: Final = "gene_mean"
"""Column of ``adata.var`` with the simulated mean of a gene."""

OUTLIER_FACTOR: Final = "outlier_factor"
"""Column of ``adata.var`` with the factor of a simulated outlier gene."""

BCV_SCALE: Final = "bcv_scale"
"""Column of ``adata.var`` with a simulated gene's factor of the biological variation."""

DE_FACTOR: Final = "de_factor_"
"""Prefix of the columns of ``adata.var`` with the factors of each simulated group."""

BATCH_FACTOR: Final = "batch_factor_"
"""Prefix of the columns of ``adata.var`` with the factors of each simulated batch."""

DIFFERENTIAL: Final = "differential"
"""Column of ``adata.var`` that says whether a gene of null data differs between the types."""

FOLD_CHANGE: Final = "fold_change"
"""Column of ``adata.var`` with a gene's mean in the second type of null data over that in the first."""

UMAP_RAW: Final = "X_umap_raw"
"""Entry of ``adata.obsm`` of the demonstration: UMAP of the counts."""

UMAP_IMPUTED: Final = "X_umap_scgacl"
"""Entry of ``adata.obsm`` of the demonstration: UMAP of the imputed layer."""


def named_layers(adata: "AnnData") -> list[str]:
    """Names of the layers, sorted; anndata 0.13 lists X among them, as None."""
    return sorted(name for name in adata.layers if name is not None)
