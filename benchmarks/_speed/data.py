"""Sparse counts like those of droplets, block by block: no dense matrix of all cells is ever made."""

import numpy as np
from scipy import sparse

_BLOCK = 4096


def simulate(n_cells: int, n_genes: int, seed: int = 0, n_types: int = 12, share: float = 0.1) -> sparse.csr_matrix:
    """Negative-binomial counts of a few types, cells x genes, float32 CSR; about ``share`` of the entries above 0."""
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(0.0, 1.6, n_genes)
    differs = rng.random((n_types, n_genes)) < 0.15
    profiles = mean * np.exp(differs * rng.normal(0.0, 0.8, (n_types, n_genes)))
    profiles *= _factor(mean, share) * mean.sum() / profiles.sum(1, keepdims=True)
    blocks = []
    for start in range(0, n_cells, _BLOCK):
        n = min(_BLOCK, n_cells - start)
        depth = rng.lognormal(0.0, 0.4, n)
        rate = profiles[rng.integers(n_types, size=n)] * depth[:, None]
        block = rng.poisson(rng.standard_gamma(2.0, rate.shape) * (rate / 2.0)).astype(np.float32)
        block[block.sum(1) == 0, 0] = 1.0  # a cell without counts is refused
        blocks.append(sparse.csr_matrix(block))
    return sparse.vstack(blocks, format="csr", dtype=np.float32)


def _factor(mean: np.ndarray, share: float) -> float:
    """Factor of the means at which ``share`` of negative-binomial counts (inverse dispersion 2) are above 0."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        above = (1 - (1 + np.exp(middle) * mean / 2) ** -2.0).mean()
        low, high = (middle, high) if above < share else (low, middle)
    return float(np.exp(low))
