import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scgacl_scvi.module._nonzeros import Nonzeros, positions, with_positions

BATCHES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=st.integers(0, 3))


@given(BATCHES)
def test_reading_and_filling_and_summing_are_those_of_dense_arrays(batch):
    x = torch.from_numpy(batch)
    nonzeros = Nonzeros(x)
    rows, columns = torch.nonzero(x, as_tuple=True)
    assert torch.equal(nonzeros.row, rows)
    assert torch.equal(nonzeros.column, columns)
    assert torch.equal(nonzeros.values, x[rows, columns])
    assert torch.equal(nonzeros.dense(nonzeros.values), x)
    assert torch.equal(nonzeros.sum_by_row(nonzeros.values), x.sum(1))
    assert torch.equal(nonzeros.sum_by_column(nonzeros.values), x.sum(0))
    other = torch.ones_like(x)
    nonzeros.add_to(other, nonzeros.values)
    assert torch.equal(other, 1 + x)


@given(BATCHES, st.integers(0, 9))
def test_those_where_a_mask_is_not_zero_are_the_non_zeros_of_the_product(batch, seed):
    x = torch.from_numpy(batch)
    mask = (torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    found, expected = Nonzeros(x, mask), Nonzeros(x * mask)
    for name in ("index", "values", "row", "column", "ends"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


def test_positions_that_are_known_are_not_searched_for_and_no_other_tensor_inherits_them():
    x = with_positions(torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([3]))
    assert positions(x).tolist() == [3]
    assert positions(x * 1).tolist() == positions(x.clone()).tolist() == [1, 2]
    x[0, 1] -= 2
    assert positions(x).tolist() == [2]
    with torch.inference_mode():
        assert positions(with_positions(torch.eye(2), torch.tensor([3]))).tolist() == [0, 3]
