"""Weights that are stored by columns are trained as if they were not."""

import pytest
import torch
from torch import nn

from scgacl_scvi.train._in_rows import forget_gradients, in_rows, take_gradients


def _trained(by_column: bool, fused: bool) -> torch.Tensor:
    """A layer's weight after some steps, clipped, restored in between, and with a hook that frees one column only."""
    torch.manual_seed(0)
    layer, x = nn.Linear(12, 5), torch.rand(20, 12)
    if by_column:
        layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    start = {key: value.clone() for key, value in layer.state_dict().items()}
    columns = torch.arange(12) < 4
    layer.weight.register_hook(lambda gradient: gradient * columns)
    parameters = in_rows(layer.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.1, fused=fused)
    for step in range(6):
        if step == 3:
            layer.load_state_dict(start)
        forget_gradients(parameters)
        layer(x).square().sum().backward()
        take_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    assert torch.equal(layer.weight[:, 4:], start["weight"][:, 4:])
    return layer.weight.detach()


def test_a_weight_by_columns_is_trained_as_one_by_rows_and_adam_copies_none():
    by_column = _trained(by_column=True, fused=True)
    torch.testing.assert_close(by_column, _trained(by_column=False, fused=False), rtol=1e-5, atol=1e-6)
    assert not by_column.is_contiguous()
    weight = nn.Parameter(torch.rand(12, 5).t())
    [row] = in_rows([weight])
    assert row.is_contiguous()
    assert row.data_ptr() == weight.data_ptr()


def test_a_parameter_that_was_moved_meanwhile_is_an_error():
    weight = nn.Parameter(torch.rand(12, 5).t())
    parameters = in_rows([weight])
    weight.data = weight.data.clone()
    weight.sum().backward()
    with pytest.raises(RuntimeError, match="moved"):
        take_gradients(parameters)
