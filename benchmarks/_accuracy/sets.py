"""The data of the benchmark: what is cut out of each file, and its fingerprint."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HELDOUT, RECOVERY, NULL, STRUCTURE = TASKS = ("heldout", "recovery", "null", "structure")

N_CELLS, N_GENES = 1500, 2000
FRACTION = 0.9
"""Share of the molecules that is for training where the others are held out."""

MIN_COUNTS = 10
"""Cells with fewer counts in the chosen genes are left out."""

MIN_CELLS = 10
"""Genes seen in fewer of the cells are no candidates."""


@dataclass(frozen=True)
class Set:
    """A data set and the tasks that it is used in."""

    name: str
    title: str
    tasks: tuple[str, ...]
    policy: str = "denoise"
    """What our model is asked for in recovery: ``"impute"`` where dropout was simulated."""
    n_clusters: int = 8
    """What the published procedure is told where it gets no labels."""
    umi: bool = True
    """Whether held-out molecules can judge it; if not, it is there to show that they cannot."""


SETS = {
    each.name: each
    for each in (
        Set("scmix_sc_celseq2", "CEL-seq2, 3 lines", (HELDOUT, STRUCTURE), n_clusters=3),
        Set("scmix_sc_celseq2_5cl", "CEL-seq2, 5 lines", (HELDOUT, STRUCTURE), n_clusters=5),
        Set("pbmc3k", "pbmc3k", (HELDOUT,), n_clusters=9),
        Set("pbmc_facs", "sorted PBMC", (HELDOUT, STRUCTURE), n_clusters=5),
        Set("paul15", "paul15", (HELDOUT,), n_clusters=7),
        Set("baron_pancreas_hvg1000", "pancreas", (HELDOUT,), n_clusters=9),
        Set("kang_pbmc_ctrl_stim", "PBMC + interferon", (HELDOUT,)),
        Set("mca_spleen", "mouse spleen", (HELDOUT,), n_clusters=12),
        Set("cbmc_citeseq_top2000", "cord blood", (HELDOUT,), n_clusters=15),
        Set("sim_scgacl_groups3", "Splat dropout A", (RECOVERY, HELDOUT), policy="impute", n_clusters=4, umi=False),
        Set("sim_autoclass_dataset1", "Splat dropout B", (RECOVERY,), policy="impute", n_clusters=6, umi=False),
        Set("baron_downsampled_ref", "pancreas, thinned", (RECOVERY,)),
        Set("scmix_RNAmix_celseq2", "RNA mixes", (STRUCTURE,), n_clusters=7),
        Set("null", "independent genes", (NULL,)),
    )
}


@dataclass
class Data:
    """Counts that every method gets, cells x genes, and what is known about them."""

    counts: object  # CSR, float32
    obs_names: np.ndarray
    var_names: np.ndarray
    labels: np.ndarray | None = None
    truth: np.ndarray | None = None
    differential: np.ndarray | None = None
    fingerprint: str = field(init=False)

    def __post_init__(self):
        digest = hashlib.sha256(repr(self.counts.shape).encode())
        for part in (self.counts.data, self.counts.indices, self.counts.indptr, self.truth, self.differential):
            if part is not None:
                digest.update(np.ascontiguousarray(part, dtype=np.float64).tobytes())
        for names in (self.obs_names, self.var_names, self.labels):
            if names is not None:
                digest.update("\0".join(map(str, names)).encode())
        self.fingerprint = digest.hexdigest()[:12]


def prepare(name: str, folder: Path | None, seed: int, n_cells: int = N_CELLS, n_genes: int = N_GENES) -> Data:
    """Read a set, or simulate it, and cut it to size, the same for all methods.

    At most ``n_cells`` random cells (seed 0, whatever the seed of the run), then the ``n_genes`` most variable genes:
    the choice that reproduces the peers' figures of the project's first measurements.
    """
    from scgacl_scvi import datasets

    if name == "null":
        adata = datasets.simulate_null(min(n_cells, 1000), seed=seed)
        return _data(adata, np.arange(adata.n_vars))
    import anndata

    if folder is None:
        raise FileNotFoundError(f"{name}: no folder of data; pass --data FOLDER or set SCGACL_DATA")
    adata = anndata.read_h5ad(folder / f"{name}.h5ad")
    if adata.n_obs > n_cells:
        adata = adata[np.sort(np.random.RandomState(0).choice(adata.n_obs, n_cells, replace=False))].copy()
    adata = adata[:, ~adata.var_names.str.startswith("ERCC-")].copy()
    genes = np.arange(adata.n_vars) if adata.n_vars <= n_genes else variable_genes(adata, n_genes)
    return _data(adata, genes)


def variable_genes(adata, n_genes: int) -> np.ndarray:
    """Positions of the most variable genes among those seen in 10 cells: Seurat's third flavour, on counts.

    Of genes that vary equally, those that come first in the file. (Genes of few counts often do, and which of them
    scanpy takes depends on the processor: numpy sorts equal values in another order where it has other instructions.)
    """
    import scanpy as sc

    seen = adata[:, np.ravel((adata.X > 0).sum(0)) >= MIN_CELLS].copy()
    sc.pp.highly_variable_genes(seen, flavor="seurat_v3", n_top_genes=min(n_genes, seen.n_vars))
    variability = seen.var["variances_norm"].to_numpy().round(9)  # beyond, machines differ
    chosen = seen.var_names[np.argsort(-variability, kind="stable")[:n_genes]]
    return np.flatnonzero(adata.var_names.isin(chosen))


def _data(adata, genes: np.ndarray) -> Data:
    from scipy import sparse

    counts = sparse.csr_matrix(adata.X, dtype=np.float32)[:, genes]
    cells = np.flatnonzero(np.ravel(counts.sum(1)) >= MIN_COUNTS)
    counts = counts[cells]
    counts.sum_duplicates()
    counts.eliminate_zeros()
    truth = adata.layers["truth"][cells][:, genes] if "truth" in adata.layers else None
    return Data(
        counts,
        obs_names=np.asarray(adata.obs_names)[cells],
        var_names=np.asarray(adata.var_names)[genes],
        labels=np.asarray(adata.obs["cell_type"].astype(str))[cells] if "cell_type" in adata.obs else None,
        truth=truth.toarray() if sparse.issparse(truth) else truth,
        differential=np.asarray(adata.var["differential"])[genes] if "differential" in adata.var else None,
    )
