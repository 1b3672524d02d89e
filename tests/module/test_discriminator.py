import copy

import torch

from scgacl_scvi.module._networks import Discriminator


def test_one_pass_over_both_kinds_is_two_passes_with_all_gradients():
    torch.manual_seed(0)
    apart = Discriminator(20, (16, 8))
    together = copy.deepcopy(apart)
    real, fake = torch.rand(2, 12, 20)
    leaf = fake.clone().requires_grad_()
    reference, judged = apart(real), apart(leaf)
    both_reference, both_judged, first_layer = together.judge_both(real, fake)
    for one, other in zip((*reference, *judged), (*both_reference, *both_judged), strict=True):
        torch.testing.assert_close(one, other)

    def loss(reference, judged):
        return judged[0].sum() + (reference[1] * judged[1]).sum() + judged[2].square().sum()

    expected = torch.autograd.grad(loss(reference, judged), leaf, retain_graph=True)[0]
    torch.testing.assert_close(first_layer.slope(loss(both_reference, both_judged)), expected)
    assert all(parameter.grad is None for parameter in together.parameters())
    loss(reference, judged).backward()
    loss(both_reference, both_judged).backward()
    for one, other in zip(apart.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)
    for one, other in zip(apart.buffers(), together.buffers(), strict=True):
        torch.testing.assert_close(one, other)
