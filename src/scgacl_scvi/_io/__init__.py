"""Files in and out: tables and AnnData read, counts prepared, results written in one step."""

from ._preprocess import preprocess
from ._read import check_input, read_anndata, read_counts
from ._write import check_output, forget_registration, replacing, write_anndata, write_table

__all__ = [
    "check_input",
    "check_output",
    "forget_registration",
    "preprocess",
    "read_anndata",
    "read_counts",
    "replacing",
    "write_anndata",
    "write_table",
]
