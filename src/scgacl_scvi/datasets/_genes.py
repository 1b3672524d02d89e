"""What a Splat simulation draws once: a profile of every gene and a plan of every cell."""

from dataclasses import dataclass

import numpy as np

from ._parameters import SplatParameters
from ._seed import stream

_N_STEPS = 100  # grid of a Brownian bridge; positions between two points are interpolated


@dataclass(frozen=True)
class Genes:
    """Everything that belongs to a gene."""

    mean: np.ndarray  # G
    outlier_factor: np.ndarray  # G, 1 where the gene is no outlier
    bcv_scale: np.ndarray  # G
    de: np.ndarray  # K x G
    batch: np.ndarray  # B x G
    nonlinear: np.ndarray  # genes whose path is bent
    bridges: np.ndarray  # K x steps + 1 x nonlinear genes, on the log scale


@dataclass(frozen=True)
class Cells:
    """Everything that belongs to a cell before its counts."""

    library: np.ndarray  # N, expected counts
    group: np.ndarray  # N
    batch: np.ndarray  # N
    position: np.ndarray | None  # N, 0 to 1


def draw_genes(parameters: SplatParameters, seed: int) -> Genes:
    """Draw gene means, factors and dispersions."""
    p, n = parameters, parameters.n_genes
    base = stream(seed, "means").gamma(p.mean_shape, 1 / p.mean_rate, n)
    outlier_factor = factors(stream(seed, "outliers"), n, p.outlier_loc, p.outlier_scale, p.outlier_prob, 0)
    mean = np.where(outlier_factor == 1, base, outlier_factor * np.median(base))
    if not mean.sum() > 0:
        raise ValueError(f"mean_shape={p.mean_shape:g} left every gene without expression; raise mean_shape.")

    de = np.ones((p.n_groups, n))
    if p.has_differences:
        for k in range(p.n_groups):
            de[k] = factors(stream(seed, "de", k), n, p.de_loc[k], p.de_scale[k], p.de_prob[k], p.de_down_prob[k])
    batch = np.ones((p.n_batches, n))
    if p.n_batches > 1:
        for b in range(p.n_batches):
            batch[b] = factors(stream(seed, "batch_factors", b), n, p.batch_loc, p.batch_scale, 1, 0.5)

    bcv_scale = np.ones(n)
    if np.isfinite(p.bcv_df):
        bcv_scale = np.sqrt(p.bcv_df / stream(seed, "bcv").chisquare(p.bcv_df, n))
    nonlinear, bridges = _draw_bridges(parameters, seed)
    return Genes(mean, outlier_factor, bcv_scale, de, batch, nonlinear, bridges)


def draw_cells(parameters: SplatParameters, seed: int) -> Cells:
    """Draw each cell's expected library size, group, batch and position."""
    p, n = parameters, parameters.n_cells
    return Cells(
        library=stream(seed, "library").lognormal(p.library_loc, p.library_scale, n),
        group=stream(seed, "groups").choice(p.n_groups, n, p=p.group_proportions),
        batch=stream(seed, "batches").choice(p.n_batches, n, p=p.batch_proportions),
        position=stream(seed, "path").random(n) if p.path else None,
    )


def factors(rng: np.random.Generator, n: int, loc: float, scale: float, prob: float, down_prob: float) -> np.ndarray:
    """Return ``n`` multiplicative factors, 1 where a gene is not selected.

    Splat draws a log-normal factor, inverts it for a down-regulated gene and turns the direction round where the draw
    itself lies below 1. So an up-regulated gene never falls: the factor is exp(|e|) or exp(-|e|), e ~ N(loc, scale).
    """
    selected = rng.random(n) < prob
    down = rng.random(n) < down_prob
    size = np.abs(rng.normal(loc, scale, n))
    return np.where(selected, np.exp(np.where(down, -size, size)), 1.0)


def _draw_bridges(parameters: SplatParameters, seed: int) -> tuple[np.ndarray, np.ndarray]:
    p = parameters
    selected = stream(seed, "bridges").random(p.n_genes) < p.path_nonlinear_prob
    nonlinear = np.flatnonzero(selected & p.path)
    bridges = np.zeros((p.n_groups, _N_STEPS + 1, nonlinear.size))
    time = np.linspace(0, 1, _N_STEPS + 1)[:, None]
    for k in range(p.n_groups):
        # Index 0 chose the genes. The walk starts at 0 and loses its end in proportion to time: both ends are 0.
        steps = stream(seed, "bridges", k + 1).normal(0, p.path_sigma / np.sqrt(_N_STEPS), (nonlinear.size, _N_STEPS))
        walk = np.vstack([np.zeros(nonlinear.size), np.cumsum(steps.T, axis=0)])
        bridges[k] = walk - time * walk[-1]
    return nonlinear, bridges


def path_factor(genes: Genes, group: int, position: float) -> np.ndarray:
    """Return the expression factor of every gene at a position of one path: 1 at its start, the group's at its end."""
    factor = 1 + position * (genes.de[group] - 1)
    if genes.nonlinear.size:
        step = min(int(position * _N_STEPS), _N_STEPS - 1)
        share = position * _N_STEPS - step
        bridge = genes.bridges[group]
        factor[genes.nonlinear] *= np.exp((1 - share) * bridge[step] + share * bridge[step + 1])
    return factor
