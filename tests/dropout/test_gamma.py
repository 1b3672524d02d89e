import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma

from scgacl_scvi.dropout._gamma import MAX_ALPHA, gamma_shape


def test_shape_is_the_root_that_scipy_finds():
    alpha = np.geomspace(1e-3, 19.5, 400)
    v = np.log(alpha) - digamma(alpha)
    by_scipy = [brentq(lambda a, v=v: np.log(a) - digamma(a) - v, 1e-4, 30, xtol=1e-15, rtol=1e-14) for v in v]
    np.testing.assert_allclose(gamma_shape(v), by_scipy, rtol=1e-11)


def test_residual_is_at_machine_precision():
    v = np.geomspace(0.026, 50, 1000)
    alpha = gamma_shape(v)
    assert alpha.max() < MAX_ALPHA
    np.testing.assert_allclose(np.log(alpha) - digamma(alpha), v, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("v", [-1.0, -1e-17, 0.0, 1e-300, 1e-17, 1e-3, 0.0249])
def test_samples_without_spread_get_the_largest_shape(v):
    assert gamma_shape(np.array([v])) == [MAX_ALPHA]


def test_no_samples_give_no_shapes():
    assert gamma_shape(np.empty(0)).shape == (0,)
