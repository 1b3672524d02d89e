"""What the model takes from the data when it is made; never a second copy of a sparse matrix."""

import numpy as np
from scipy import sparse

from scgacl_scvi.evaluate._matrix import row_blocks


def data_statistics(x, library: np.ndarray, gene_likelihood: str, input_scale: str) -> tuple[float, np.ndarray, float]:
    """Median library, each gene's mean at that depth (or the mean of its non-zero lognorm values), and the maximum."""
    median = float(np.median(library))
    if input_scale == "counts":
        scale = (median / np.maximum(library, 1e-12)).astype(np.float32)
        if gene_likelihood != "normal" and sparse.issparse(x):
            return median, *_scaled_means(x, scale)
        x = sparse.diags_array(scale) @ (sparse.csr_array(x) if sparse.issparse(x) else x)
    if gene_likelihood != "normal":
        return median, np.ravel(x.mean(0)), float(x.max())
    x = x.log1p() if sparse.issparse(x) and input_scale == "counts" else np.log1p(x) if input_scale == "counts" else x
    seen = np.ravel((x > 0).sum(0))
    return median, np.ravel(x.sum(0)) / np.maximum(seen, 1), float(x.max())


def _scaled_means(x, scale: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean over cells, each times its factor, of each gene, and the largest value; of a sparse matrix."""
    means, largest = np.zeros(x.shape[1], np.result_type(x.dtype, scale)), 0.0
    for rows in row_blocks(x.shape):
        block = sparse.csr_array(x[rows])
        values = block.data * np.repeat(scale[rows], np.diff(block.indptr))
        np.add.at(means, block.indices, values * means.dtype.type(1.0 / x.shape[0]))
        largest = max(largest, float(values.max(initial=0.0)))
    return means, largest
