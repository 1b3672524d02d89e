"""Both losses against brute-force sums over pairs, written from the papers' equations."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scgacl_scvi.module import nt_xent, sup_con


def _cosine(a, b) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b)))


def _nt_xent_by_pairs(first, second, temperature) -> float:
    rows = [*first.tolist(), *second.tolist()]
    n, losses = len(first), []
    for i in range(2 * n):
        positive = i + n if i < n else i - n
        denominator = sum(math.exp(_cosine(rows[i], rows[k]) / temperature) for k in range(2 * n) if k != i)
        losses.append(-math.log(math.exp(_cosine(rows[i], rows[positive]) / temperature) / denominator))
    return sum(losses) / len(losses)


def _sup_con_by_pairs(features, labels, temperature, base) -> float:
    rows, total = features.tolist(), 0.0
    for i, row in enumerate(rows):
        positives = [p for p in range(len(rows)) if p != i and labels[p] == labels[i]]
        if not positives:
            continue
        denominator = sum(math.exp(_cosine(row, other) / temperature) for a, other in enumerate(rows) if a != i)
        logs = [math.log(math.exp(_cosine(row, rows[p]) / temperature) / denominator) for p in positives]
        total += -(temperature / base) * sum(logs) / len(logs)
    return total / len(rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(2, 6), st.floats(0.1, 2.0), st.integers(0, 10_000))
def test_nt_xent_equals_the_sum_over_pairs(n, d, temperature, seed):
    first, second = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert nt_xent(first, second, temperature).item() == pytest.approx(
        _nt_xent_by_pairs(first, second, temperature), rel=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.floats(0.1, 2.0), st.integers(0, 10_000))
def test_sup_con_equals_the_sum_over_pairs(labels, temperature, seed):
    features = torch.randn(len(labels), 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours = sup_con(features, torch.tensor(labels), temperature, 0.7).item()
    assert ours == pytest.approx(_sup_con_by_pairs(features, labels, temperature, 0.7), rel=1e-9, abs=1e-12)


def test_losses_ignore_the_length_of_features_and_the_order_of_cells():
    a, b = torch.randn(2, 6, 4)
    order = torch.randperm(6)
    labels = torch.tensor([0, 1, 0, 1, 2, 2])
    torch.testing.assert_close(nt_xent(3 * a, 0.1 * b), nt_xent(a[order], b[order]))
    torch.testing.assert_close(sup_con(3 * a, labels), sup_con(a[order], labels[order]))


def test_identical_views_are_better_than_mismatched_ones():
    a = torch.eye(6)
    assert nt_xent(a, a) < nt_xent(a, a.roll(1, 0))


def test_types_that_are_apart_are_better_than_types_that_are_mixed():
    features, labels = torch.eye(2).repeat_interleave(4, 0), torch.tensor([0] * 4 + [1] * 4)
    assert sup_con(features, labels) < sup_con(features, labels[torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])])


def test_collapsed_features_score_as_chance():
    same = torch.ones(8, 3)
    assert nt_xent(same, same).item() == pytest.approx(math.log(15), rel=1e-5)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_rows_give_zero_with_a_graph(n):
    features = torch.randn(n, 4, requires_grad=True)
    for loss in (nt_xent(features, features), sup_con(features, torch.zeros(n, dtype=torch.long))):
        loss.backward()
        assert loss.item() == 0.0


def test_gradients_are_finite_where_no_row_has_a_positive():
    features = torch.randn(5, 3, requires_grad=True)
    sup_con(features, torch.arange(5)).backward()
    assert torch.isfinite(features.grad).all()


def _strata_case(seed: int, d: int = 4):
    rng = torch.Generator().manual_seed(seed)
    strata = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    first, second = (torch.randn(len(strata), d, generator=rng) for _ in range(2))
    return first, second, strata, torch.randint(0, 2, (len(strata),), generator=rng)


@pytest.mark.parametrize("seed", [0, 1])
def test_strata_are_contrasted_each_by_itself(seed):
    first, second, strata, labels = _strata_case(seed)
    own = [strata == s for s in (0, 1)]
    shares = [float(rows.float().mean()) for rows in own]
    by_stratum = sum(
        share * _nt_xent_by_pairs(first[rows], second[rows], 0.9) for share, rows in zip(shares, own, strict=True)
    )
    assert float(nt_xent(first, second, 0.9, strata)) == pytest.approx(by_stratum, abs=1e-5)
    by_stratum = sum(
        share * _sup_con_by_pairs(first[rows], labels[rows].tolist(), 0.9, 0.7)
        for share, rows in zip(shares, own, strict=True)
    )
    assert float(sup_con(first, labels, 0.9, 0.7, strata)) == pytest.approx(by_stratum, abs=1e-5)


def test_a_stratum_has_no_gradient_from_another_and_a_lone_cell_no_nan():
    first, second, _, labels = _strata_case(2)
    strata = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    first.requires_grad_()
    for loss in (nt_xent(first[:, :], second, 0.9, strata), sup_con(first, labels, strata=strata)):
        (gradient,) = torch.autograd.grad(loss, first)
        assert torch.isfinite(gradient).all()
    moved = second.clone()
    moved[3:] = torch.randn(4, 4)
    gradients = [torch.autograd.grad(nt_xent(first, other, 0.9, strata), first)[0][:3] for other in (second, moved)]
    torch.testing.assert_close(*gradients)
