"""What imputation leaves of the markers of a rare type: the share of their raw log-fold change that is kept.

    python benchmarks/rare_type.py [--seeds 20] [--ungated]

1,000 cells x 300 genes, three common types, and ten cells (1 %) with 15 markers that are 10-fold up. For each seed the
mean over markers of the log-fold change (rare type against the rest, at the median library) of the imputed values over
that of the raw counts, for both policies, and the share of the markers that pass the gate. Prints versions.
"""

import argparse
import importlib.metadata
import logging

import anndata
import numpy as np
import scvi
from scipy import sparse

from scgacl_scvi import SCGACL

N_CELLS, N_GENES, N_RARE, N_MARKERS, FOLD = 1000, 300, 10, 15, 10.0


def simulate(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts (cells x genes), whether a cell is rare, and the markers."""
    rng = np.random.default_rng(seed)
    mean = 10 ** rng.uniform(-1, 1, N_GENES)
    rare = np.arange(N_CELLS) < N_RARE
    markers = rng.choice(N_GENES, N_MARKERS, replace=False)
    common = 10 ** (rng.normal(0, 0.5, (3, N_GENES)) * (rng.random((3, N_GENES)) < 0.3))
    expected = rng.lognormal(0, 0.4, N_CELLS)[:, None] * mean * common[rng.integers(0, 3, N_CELLS)]
    expected[np.ix_(rare, markers)] *= FOLD
    return rng.poisson(rng.gamma(5.0, expected / 5.0)).astype(np.float32), rare, markers


def fold_change(values: np.ndarray, rare: np.ndarray) -> np.ndarray:
    return np.log((values[rare].mean(0) + 1e-3) / (values[~rare].mean(0) + 1e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--ungated", action="store_true", help="train with gate_genes=False")
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print({name: importlib.metadata.version(name) for name in ("scgacl-scvi", "scvi-tools", "torch", "numpy")})
    kept: dict[str, list[float]] = {"denoise": [], "impute": []}
    for seed in range(arguments.seeds):
        counts, rare, markers = simulate(seed)
        scvi.settings.seed = seed
        adata = anndata.AnnData(sparse.csr_matrix(counts))
        SCGACL.setup_anndata(adata)
        model = SCGACL(adata)
        model.train(enable_progress_bar=False, gate_genes=not arguments.ungated)
        library = counts.sum(1, keepdims=True)
        raw = fold_change(counts / library * np.median(library), rare)[markers].mean()
        for policy, shares in kept.items():
            values = model.get_imputed_expression(policy=policy, return_numpy=True, layer_key=None)
            shares.append(float(fold_change(np.expm1(values), rare)[markers].mean() / raw))
        passed = (~model.module.gate.keeps_own_mean)[markers].float().mean()
        print(
            {"seed": seed, **{k: round(v[-1], 3) for k, v in kept.items()}, "markers passing": round(float(passed), 2)}
        )
    for policy, shares in kept.items():
        print(f"{policy}: {np.mean(np.array(shares) >= 0.8):.0%} of seeds keep 80 %; mean {np.mean(shares):.3f}")


if __name__ == "__main__":
    main()
