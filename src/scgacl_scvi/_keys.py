"""Every key that this package reads or writes in an AnnData, a registry or a history. No other file spells one out."""

from typing import Final

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
"""Metric that decides when to stop; logged as ``heldout_nll_validation`` in nats per held-out molecule."""

FRACTIONAL_ARG: Final = "fractional"
"""Argument of ``setup_anndata``, kept in the registry: what to do with corrected (fractional) counts."""

INPUT_SCALE_ARG: Final = "input_scale"
"""Argument of ``setup_anndata``, kept in the registry: the scale of the registered matrix."""
