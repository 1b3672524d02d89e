import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from scgacl_scvi.module._nonzeros import Nonzeros

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
