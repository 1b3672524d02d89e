"""What every imputer is compared with: controls, and methods of others."""

from ._controls import gene_mean, gene_mean_impute, no_imputation, type_mean

__all__ = ["gene_mean", "gene_mean_impute", "no_imputation", "type_mean"]
