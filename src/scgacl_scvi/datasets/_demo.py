"""The data set of the demonstration."""

from typing import TYPE_CHECKING

from ._splat import simulate_splat

if TYPE_CHECKING:
    from anndata import AnnData


def demo(seed: int | None = 0) -> "AnnData":
    """Simulate the small data set of ``scgacl demo``: 800 cells of five types, 1,000 genes, six zeros in ten entries.

    About seven zeros in ten are dropouts, the others are true. Some 40 % of the genes differ in a type, by a factor
    of about 2. So a gene's mean misses what the types differ in, while the types stay visible through the dropout:
    there is something to gain, and it can be gained.

    Parameters
    ----------
    seed
        As for :func:`simulate_splat`.

    Returns
    -------
    AnnData
        800 cells x 1,000 genes: counts, truth, dropout mask and groups as :func:`simulate_splat` gives them.

    Raises
    ------
    ValueError
        If ``seed`` is not a non-negative integer or None.

    Examples
    --------
    >>> adata = datasets.demo()
    """
    return simulate_splat(
        n_cells=800,
        n_genes=1000,
        group_proportions=(0.3, 0.25, 0.2, 0.15, 0.1),
        library_loc=10.7,
        library_scale=0.3,
        de_prob=0.4,
        de_loc=0.6,
        de_scale=0.6,
        dropout_midpoint=2.5,
        seed=seed,
    )
