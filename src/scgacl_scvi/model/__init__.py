"""The model and its mixins."""

from ._scgacl import SCGACL

__all__ = ["SCGACL"]
