"""The only importer of private names of scvi-tools, and the only place that knows its versions."""

from scvi.data._utils import _validate_adata_dataloader_input as validate_adata_dataloader_input
from scvi.model._utils import _get_batch_code_from_category as batch_codes
from scvi.model._utils import use_distributed_sampler

__all__ = ["batch_codes", "use_distributed_sampler", "validate_adata_dataloader_input"]
