"""MAGIC, read by `_child.py` in an interpreter that has magic-impute."""

import magic
import numpy as np
from scipy import sparse

VERSION = magic.__version__


def denoise(counts, seed, reversed_normalisation):
    """Library-normalised square roots, as MAGIC's manual asks for; back to counts at each cell's own depth."""
    values = counts.astype(np.float64)
    if reversed_normalisation:
        values = values.sqrt()
    library = np.asarray(values.sum(axis=1)).ravel()
    scale = np.median(library) / library
    values = sparse.csr_matrix(sparse.diags(scale) @ values)
    if not reversed_normalisation:
        values = values.sqrt()
    imputed = magic.MAGIC(random_state=seed, n_jobs=1, verbose=0).fit_transform(values.toarray())
    if reversed_normalisation:
        return (imputed / scale[:, None]) ** 2
    return imputed**2 / scale[:, None]
