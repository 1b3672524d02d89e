"""Parameters as the fused Adam wants them: one row after the other in memory.

It copies each gradient that is not, and throws the copy away (torch 2.13, CPU). The first weights of encoder and
discriminator are stored gene by gene, so it gets their transposes, which are in rows.
"""

from collections.abc import Iterable

from torch import nn


def in_rows(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters, with the transpose (of the same memory) of each that is stored by columns."""
    return [_transpose(p) if p.dim() == 2 and not p.is_contiguous() else p for p in parameters]


def _transpose(parameter: nn.Parameter) -> nn.Parameter:
    transpose = nn.Parameter(parameter.detach().t())
    transpose.transpose_of = parameter
    return transpose


def forget_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """No gradient, nor one of what they are the transposes of."""
    for parameter in parameters:
        parameter.grad = None
        if hasattr(parameter, "transpose_of"):
            parameter.transpose_of.grad = None


def take_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give transposes the gradients of what they are the transposes of.

    Raises
    ------
    RuntimeError
        If such a parameter has got other memory since, as by a move to another device: it would train no more.
    """
    for parameter in parameters:
        source = getattr(parameter, "transpose_of", None)
        if source is None or source.grad is None:
            continue
        if source.data_ptr() != parameter.data_ptr():
            raise RuntimeError("the module was moved while it was trained; move it before `train`, or after.")
        parameter.grad = source.grad.t()
