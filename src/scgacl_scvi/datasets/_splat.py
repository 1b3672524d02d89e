"""The Splat model of single-cell counts, with dropout and its truth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

from scgacl_scvi import _keys

from ._genes import Cells, Genes, draw_cells, draw_genes, path_factor
from ._parameters import SplatParameters
from ._seed import resolve_seed, stream

if TYPE_CHECKING:
    from anndata import AnnData

_MAX_COUNT = 2**24  # float32 holds every integer up to here


def simulate_splat(
    n_cells: int = 500,
    n_genes: int = 1000,
    *,
    group_proportions: Sequence[float] = (0.4, 0.3, 0.2, 0.1),
    n_batches: int | None = None,
    batch_proportions: Sequence[float] | None = None,
    path: bool = False,
    mean_shape: float = 0.6,
    mean_rate: float = 0.3,
    outlier_prob: float = 0.05,
    outlier_loc: float = 4.0,
    outlier_scale: float = 0.5,
    library_loc: float = 11.0,
    library_scale: float = 0.2,
    de_prob: float | Sequence[float] = 0.1,
    de_down_prob: float | Sequence[float] = 0.5,
    de_loc: float | Sequence[float] = 0.1,
    de_scale: float | Sequence[float] = 0.4,
    batch_loc: float = 0.1,
    batch_scale: float = 0.1,
    bcv_common: float = 0.1,
    bcv_df: float = 60.0,
    path_nonlinear_prob: float = 0.0,
    path_sigma: float = 0.8,
    dropout: bool = True,
    dropout_midpoint: float = 2.0,
    dropout_shape: float = -1.0,
    seed: int | None = None,
) -> "AnnData":
    r"""Simulate counts of cell types, batches or trajectories, with dropout and the truth behind it.

    A gene has a mean :math:`\mu_g \sim \text{Gamma}(\text{shape}, \text{rate})`; an outlier has the median mean times
    a log-normal factor. A cell has a log-normal library size :math:`L_n`. Its expected counts are :math:`m_{ng} = L_n
    w_{ng} / \sum_h w_{nh}` with :math:`w_{ng} = \mu_g \cdot` batch factor :math:`\cdot` group factor. Then, with
    :math:`c_{ng} = (\phi + m_{ng}^{-1/2}) \sqrt{d / \chi^2_{d,g}}` the biological coefficient of variation,

    .. math::

        \lambda_{ng} &\sim \text{Gamma}(c_{ng}^{-2}, \text{scale } m_{ng} c_{ng}^2) \\
        x_{ng} &\sim \text{Poisson}(\lambda_{ng}) \\
        P(\text{dropout})_{ng} &= 1 / (1 + \exp(-k (\log \lambda_{ng} - x_0)))

    Defaults are Splat's, except that there are four groups and that dropout is on, with a midpoint of 2.

    Parameters
    ----------
    n_cells, n_genes
        Size of the data. All are kept, also those without a count.
    group_proportions
        Expected share of each cell type; sums to 1. A single group, ``[1.0]``, has no differential expression.
    n_batches
        Number of batches, by default as many as ``batch_proportions`` has, or 1. A single batch has no effect.
    batch_proportions
        Expected share of each batch; sums to 1; equal by default. Batches are independent of groups.
    path
        Whether a group is a trajectory from a start that all share to the group's profile, rather than that profile.
        Cells lie on it uniformly; the group factor moves in a straight line from 1 to its value.
    mean_shape, mean_rate
        Of the Gamma distribution of gene means. Only ratios of means matter: the library size sets the counts.
    outlier_prob, outlier_loc, outlier_scale
        Share of genes with outlying expression; log-mean and log-standard deviation of their factor.
    library_loc, library_scale
        Log-mean and log-standard deviation of expected true counts per cell.
    de_prob, de_down_prob, de_loc, de_scale
        Share of genes differentially expressed in a group, share of these that are down-regulated, and log-mean and
        log-standard deviation of the factors. One number, or one per group. As in Splat a factor on the wrong side
        of 1 is inverted: it is :math:`\exp(\pm |e|)` with e normal.
    batch_loc, batch_scale
        Of the factors of batches, which touch every gene, half of them downwards.
    bcv_common, bcv_df
        :math:`\phi` and d; ``bcv_df=numpy.inf`` gives every gene the same trend.
    path_nonlinear_prob, path_sigma
        Share of genes whose path is bent: its factor is multiplied by the exponential of a Brownian bridge with this
        standard deviation per unit of path. Used with ``path=True`` only.
    dropout
        Whether to add dropout. The truth does not depend on it.
    dropout_midpoint, dropout_shape
        :math:`x_0`, the natural logarithm of the expression at which half of the counts are lost, and k. Real
        protocols lose weakly expressed genes: k < 0.
    seed
        Of all random numbers. None takes ``scvi.settings.seed``, or 0 where that is None. The same seed gives the
        same bits under the same numpy; numpy may change its distributions between versions.

    Returns
    -------
    AnnData
        cells x genes; matrices are CSR.

        - ``X``: observed counts, integers in float32; ``layers["truth"]``: the same before dropout
        - ``layers["dropout_mask"]``: bool, true where dropout set a true count above 0 to 0
        - ``obs``: ``group``; ``batch`` with several batches; ``path_position`` (0 to 1) with a path;
          ``library_size`` (expected true counts)
        - ``var``: ``gene_mean`` (arbitrary unit, all groups and batches alike), ``outlier_factor``, ``bcv_scale``
          (:math:`\sqrt{d / \chi^2_{d,g}}`), ``de_factor_Group1``, ..., ``batch_factor_Batch1``, ...
        - ``uns["simulation"]``: every parameter and the seed

    Raises
    ------
    ValueError
        If an argument is outside its range, or expected counts are too large for float32 (from 2^23).

    Notes
    -----
    Splat of Zappia, Phipson & Oshlack 2017 (doi:10.1186/s13059-017-1305-0), written from the model. Different here:
    trajectories share one start, cells lie on them uniformly, a bridge is multiplicative (a factor stays positive).

    Cells are drawn one at a time, each from a random stream of its own. So no dense cells x genes matrix is ever
    held, and a cell's true counts do not depend on how many others there are.

    Examples
    --------
    >>> from scgacl_scvi import datasets
    >>> adata = datasets.simulate_splat(n_cells=800, n_genes=1000, group_proportions=[0.4, 0.3, 0.2, 0.1], seed=1)
    """
    arguments = dict(locals())  # nothing else is local yet: exactly what was passed
    seed = resolve_seed(arguments.pop("seed"))
    parameters = SplatParameters(**arguments)
    genes, cells = draw_genes(parameters, seed), draw_cells(parameters, seed)
    layers = _draw_counts(genes, cells, parameters, seed)
    return _to_anndata(layers, genes, cells, parameters, seed)


def _draw_counts(genes: Genes, cells: Cells, parameters: SplatParameters, seed: int) -> tuple[sp.csr_matrix, ...]:
    """Return observed counts, true counts and the dropout mask."""
    columns, counts, lost = [], [], []  # one array per cell, over its non-zero true counts
    for cell in range(parameters.n_cells):
        drawn = _draw_cell(stream(seed, "cells", cell), _expected(genes, cells, cell), genes, parameters)
        for column, values in zip((columns, counts, lost), drawn, strict=True):
            column.append(values)
    n_true = np.array([each.size for each in lost])
    n_lost = np.array([each.sum() for each in lost])
    columns, counts, lost = _joined(columns), _joined(counts), _joined(lost)

    def csr(values: np.ndarray, indices: np.ndarray, row_sizes: np.ndarray) -> sp.csr_matrix:
        indptr = np.concatenate([[0], np.cumsum(row_sizes)])
        return sp.csr_matrix((values, indices, indptr), shape=(parameters.n_cells, parameters.n_genes))

    kept = ~lost
    observed = csr(counts[kept], columns[kept], n_true - n_lost)
    mask = csr(np.ones(n_lost.sum(), dtype=bool), columns[lost], n_lost)
    return observed, csr(counts, columns, n_true), mask


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(arrays)
    arrays.clear()  # else both live until all three lists are joined
    return joined


def _expected(genes: Genes, cells: Cells, cell: int) -> np.ndarray:
    """Return the expected true counts of one cell before biological variation."""
    group = cells.group[cell]
    factor = genes.de[group] if cells.position is None else path_factor(genes, group, cells.position[cell])
    weight = genes.mean * genes.batch[cells.batch[cell]] * factor
    return weight * (cells.library[cell] / weight.sum())


def _draw_cell(
    rng: np.random.Generator, expected: np.ndarray, genes: Genes, parameters: SplatParameters
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the genes with a true count, these counts, and which of them dropout hides."""
    # spread = expected x bcv^2. In the root of the mean, since bcv itself is infinite for a gene of mean 0.
    spread = (genes.bcv_scale * (parameters.bcv_common * np.sqrt(expected) + 1)) ** 2
    rate = rng.standard_gamma(expected / spread) * spread  # shape 1 / bcv^2
    if rate.max() >= _MAX_COUNT / 2:  # half: the Poisson draw may exceed its mean
        raise ValueError(
            f"library_loc={parameters.library_loc:g} and library_scale={parameters.library_scale:g} give counts above "
            "2**23, too close to what float32 holds exactly; lower library_loc."
        )
    counts = rng.poisson(rate)
    columns = np.flatnonzero(counts)
    # Last, so that the truth is the same with any dropout or none.
    lost = np.zeros(columns.size, dtype=bool)
    if parameters.dropout:
        lost = rng.random(columns.size) < _dropout_probability(rate[columns], parameters)
    return columns.astype(np.int32), counts[columns].astype(np.float32), lost


def _dropout_probability(rate: np.ndarray, parameters: SplatParameters) -> np.ndarray:
    return expit(parameters.dropout_shape * (np.log(rate) - parameters.dropout_midpoint))


def _to_anndata(
    layers: tuple[sp.csr_matrix, ...], genes: Genes, cells: Cells, parameters: SplatParameters, seed: int
) -> "AnnData":
    import pandas as pd
    from anndata import AnnData

    def labels(word: str, codes: np.ndarray, n: int) -> pd.Categorical:
        return pd.Categorical.from_codes(codes, [f"{word}{i + 1}" for i in range(n)])

    def names(word: str, n: int) -> list[str]:
        return [f"{word}{i + 1:0{max(4, len(str(n)))}d}" for i in range(n)]

    obs = {_keys.GROUP: labels("Group", cells.group, parameters.n_groups)}
    var = {
        _keys.GENE_MEAN: genes.mean,
        _keys.OUTLIER_FACTOR: genes.outlier_factor,
        _keys.BCV_SCALE: genes.bcv_scale,
    }
    var |= {f"{_keys.DE_FACTOR}Group{k + 1}": factor for k, factor in enumerate(genes.de)}
    if parameters.n_batches > 1:
        obs[_keys.BATCH] = labels("Batch", cells.batch, parameters.n_batches)
        var |= {f"{_keys.BATCH_FACTOR}Batch{b + 1}": factor for b, factor in enumerate(genes.batch)}
    if cells.position is not None:
        obs[_keys.PATH_POSITION] = cells.position
    obs[_keys.LIBRARY_SIZE] = cells.library

    observed, truth, mask = layers
    return AnnData(
        observed,
        obs=pd.DataFrame(obs, index=names("Cell", parameters.n_cells)),
        var=pd.DataFrame(var, index=names("Gene", parameters.n_genes)),
        uns={_keys.SIMULATION: {"model": "splat", **parameters.to_uns(), "seed": seed}},
        layers={_keys.TRUTH_LAYER: truth, _keys.DROPOUT_LAYER: mask},
    )
