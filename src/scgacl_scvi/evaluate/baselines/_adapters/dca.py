"""DCA, read by `_child.py` in an interpreter that has dca and TensorFlow 2.4."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read by TensorFlow at its import

import importlib.metadata

import anndata
import tensorflow as tf
from dca.api import dca

# DCA seeds TensorFlow while eager and leaves eager mode afterwards, which forgets the seed: leave it first.
tf.compat.v1.disable_eager_execution()

VERSION = importlib.metadata.version("dca")


def denoise(counts, seed):
    """DCA's defaults on counts. Its means include the size factors, so they are at each cell's own depth."""
    threads = os.environ.get("OMP_NUM_THREADS")  # TensorFlow itself does not heed it
    adata = anndata.AnnData(counts.toarray().astype("float32"))
    return dca(adata, mode="denoise", random_state=seed, threads=int(threads) if threads else None, copy=True).X
