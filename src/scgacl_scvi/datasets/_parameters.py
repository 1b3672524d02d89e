"""The checked settings of a Splat simulation."""

from dataclasses import asdict, dataclass
from numbers import Integral
from typing import Any

import numpy as np

# Lower and upper bound of each number. Those on the log scale keep every product of factors far from overflow.
_BOUNDS = {
    "mean_shape": (1e-2, 1e6),
    "mean_rate": (1e-6, 1e6),
    "outlier_prob": (0, 1),
    "outlier_loc": (-50, 50),
    "outlier_scale": (0, 10),
    "library_loc": (-50, 50),
    "library_scale": (0, 10),
    "batch_loc": (-50, 50),
    "batch_scale": (0, 10),
    "bcv_common": (0, 100),
    "bcv_df": (1, np.inf),
    "path_nonlinear_prob": (0, 1),
    "path_sigma": (0, 10),
    "dropout_midpoint": (-50, 50),
    "dropout_shape": (-100, 100),
}
_BOUNDS_PER_GROUP = {"de_prob": (0, 1), "de_down_prob": (0, 1), "de_loc": (-50, 50), "de_scale": (0, 10)}


@dataclass(frozen=True, kw_only=True)
class SplatParameters:
    """Arguments of :func:`simulate_splat`, checked; defaults filled in, sequences as tuples."""

    n_cells: int
    n_genes: int
    group_proportions: tuple[float, ...]
    n_batches: int | None
    batch_proportions: tuple[float, ...] | None
    path: bool
    mean_shape: float
    mean_rate: float
    outlier_prob: float
    outlier_loc: float
    outlier_scale: float
    library_loc: float
    library_scale: float
    de_prob: tuple[float, ...]
    de_down_prob: tuple[float, ...]
    de_loc: tuple[float, ...]
    de_scale: tuple[float, ...]
    batch_loc: float
    batch_scale: float
    bcv_common: float
    bcv_df: float
    path_nonlinear_prob: float
    path_sigma: float
    dropout: bool
    dropout_midpoint: float
    dropout_shape: float

    def __post_init__(self):
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen for everyone else

        for name in ("n_cells", "n_genes"):
            put(name, _count(name, getattr(self, name)))
        put("group_proportions", _proportions("group_proportions", self.group_proportions))
        if self.batch_proportions is None:
            put("n_batches", 1 if self.n_batches is None else _count("n_batches", self.n_batches))
            put("batch_proportions", (1 / self.n_batches,) * self.n_batches)
        else:
            put("batch_proportions", _proportions("batch_proportions", self.batch_proportions))
            n_given = len(self.batch_proportions)
            if self.n_batches is not None and _count("n_batches", self.n_batches) != n_given:
                raise ValueError(
                    f"n_batches is {self.n_batches} but batch_proportions has {n_given} values; leave n_batches out."
                )
            put("n_batches", n_given)
        for name, bounds in _BOUNDS.items():
            put(name, _number(name, getattr(self, name), *bounds))
        for name, bounds in _BOUNDS_PER_GROUP.items():
            put(name, _per_group(name, getattr(self, name), len(self.group_proportions), *bounds))
        for name in ("path", "dropout"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}.")
            put(name, bool(getattr(self, name)))

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self.group_proportions)

    @property
    def has_differences(self) -> bool:
        """Whether differential expression is drawn: a single group differs from nothing, unless it is a path."""
        return self.n_groups > 1 or self.path

    def to_uns(self) -> dict[str, Any]:
        """Return the parameters as h5ad can store them."""
        return {key: np.array(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}; pass for example {name}=500.")
    return int(value)


def _number(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not low <= number <= high:  # NaN fails too
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {value!r}; pass one in that range.")
    return number


def _per_group(name: str, value: Any, n_groups: int, low: float, high: float) -> tuple[float, ...]:
    values = _values(value)
    if values is None:
        return (_number(name, value, low, high),) * n_groups
    if len(values) != n_groups:
        raise ValueError(
            f"{name} has {len(values)} values for {n_groups} groups; pass one number, or one per group_proportions."
        )
    return tuple(_number(name, each, low, high) for each in values)


def _proportions(name: str, value: Any) -> tuple[float, ...]:
    values = _values(value)
    if values is None:
        raise ValueError(f"{name} must be a sequence of proportions, got {value!r}; pass for example [0.6, 0.4].")
    values = np.array([_number(name, each, 0, 1) for each in values])
    if values.size == 0 or (values == 0).any():
        raise ValueError(f"{name} must hold at least one value and no zero, got {value!r}; leave empty ones out.")
    if abs(values.sum() - 1) > 1e-6:
        raise ValueError(f"{name} must sum to 1, got a sum of {values.sum():g}; divide them by their sum.")
    return tuple((values / values.sum()).tolist())


def _values(value: Any) -> tuple | None:
    """Return the values of a sequence, None for anything else."""
    if isinstance(value, str | bytes):
        return None
    try:
        return tuple(value)
    except TypeError:
        return None
