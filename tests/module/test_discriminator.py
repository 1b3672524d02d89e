import copy

import pytest
import torch

from scgacl_scvi.module._networks import Discriminator, Encoder
from scgacl_scvi.module._nonzeros import Nonzeros
from scgacl_scvi.module._sparse_linear import is_worth_it


@pytest.mark.parametrize("thin", [False, True])
def test_one_pass_over_both_kinds_is_two_passes_with_all_gradients(thin):
    torch.manual_seed(0)
    apart = Discriminator(20, (16, 8))
    together = copy.deepcopy(apart)
    real, fake = torch.rand(2, 12, 20) * (torch.rand(12, 20) < 0.2)
    nonzeros = Nonzeros(real) if thin else None
    leaf = fake.clone().requires_grad_()
    reference, judged = apart(real), apart(leaf)
    given = (nonzeros.of(real), nonzeros.of(fake)) if thin else (real, fake)
    both_reference, both_judged, first_layer = together.judge_both(*given, nonzeros)
    for one, other in zip((*reference, *judged), (*both_reference, *both_judged), strict=True):
        torch.testing.assert_close(one, other)

    def loss(reference, judged):
        return judged[0].sum() + (reference[1] * judged[1]).sum() + judged[2].square().sum()

    expected = torch.autograd.grad(loss(reference, judged), leaf, retain_graph=True)[0]
    slope = first_layer.slope(loss(both_reference, both_judged))
    torch.testing.assert_close(slope, nonzeros.of(expected) if thin else expected)
    assert all(parameter.grad is None for parameter in together.parameters())
    loss(reference, judged).backward()
    loss(both_reference, both_judged).backward()
    for one, other in zip(apart.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)
    for one, other in zip(apart.buffers(), together.buffers(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("covariates", [False, True])
def test_an_encoder_told_the_nonzeros_gives_the_same(share, covariates):
    torch.manual_seed(1)
    encoder = Encoder(30, 3, (8, 8), n_cat_list=[2 if covariates else 1])
    x = torch.rand(20, 30) * (torch.rand(20, 30) < share)
    batch = torch.arange(20)[:, None] % 2 if covariates else torch.zeros(20, 1, dtype=torch.long)
    nonzeros = Nonzeros(x)
    assert is_worth_it(nonzeros) == (share < 0.5)
    gradients = []
    for known in (None, nonzeros):
        encoder.zero_grad()
        qz = encoder(x if known is None else known.of(x), batch, nonzeros=known)
        (qz.loc.square().sum() + qz.scale.sum()).backward()
        gradients.append([qz.loc.detach(), *(parameter.grad.clone() for parameter in encoder.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
