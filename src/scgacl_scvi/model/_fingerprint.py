"""A short name for the numbers that a result was made from."""

import hashlib

import numpy as np
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager

from scgacl_scvi.train import registered_matrix

_BLOCK_ENTRIES = 2**24


def data_fingerprint(manager: AnnDataManager) -> str:
    """Hash of the registered matrix and its gene names: 32 hexadecimal digits.

    Does not depend on how the matrix is stored (dense, CSR, CSC, backed; single or double precision).
    """
    x = registered_matrix(manager)
    state = manager.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(tuple(x.shape)).encode())
    digest.update("\n".join(np.asarray(state["column_names"]).astype(str)).encode())
    step = max(1, _BLOCK_ENTRIES // x.shape[1])
    for start in range(0, x.shape[0], step):
        block = x[start : start + step]
        block = sparse.csr_matrix(block.compute() if hasattr(block, "compute") else block, dtype=np.float32, copy=True)
        block.sum_duplicates()
        block.eliminate_zeros()
        for array, dtype in ((np.diff(block.indptr), "<i8"), (block.indices, "<i8"), (block.data, "<f4")):
            digest.update(np.ascontiguousarray(array, dtype=dtype).tobytes())
    return digest.hexdigest()
