"""Simulated data with a known truth, and down-sampling of real data."""

from ._demo import demo
from ._null import simulate_null
from ._splat import simulate_splat
from ._thin import downsample, thin

__all__ = ["demo", "downsample", "simulate_null", "simulate_splat", "thin"]
