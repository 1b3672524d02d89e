import numpy as np
import pytest
from scipy import sparse

from scgacl_scvi.evaluate import difference_kept


def _case(seed: int = 0, n: int = 60, genes: int = 50):
    rng = np.random.default_rng(seed)
    condition = np.array(["control", "treated"])[np.arange(n) % 2]
    return rng.gamma(1.0, 1.0, (n, genes)), condition


def _by_hand(imputed, raw, condition, n_genes):
    changes = []
    for x in (raw, imputed):
        bulks = [np.expm1(x[condition == c]).sum(0) for c in ("control", "treated")]
        low, high = (np.log1p(bulk / bulk.sum() * 1e4) for bulk in bulks)
        changes.append(high - low)
    top = np.argsort(-np.abs(changes[0]))[:n_genes]
    return np.polyfit(changes[0][top], changes[1][top], 1)[0]


@pytest.mark.parametrize("n_genes", [10, 200])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_the_slope_is_that_of_a_regression_on_the_largest_raw_changes(n_genes, form):
    raw, condition = _case()
    imputed = raw * np.random.default_rng(1).uniform(0.5, 1.0, raw.shape)
    found = difference_kept(form(imputed), form(raw), condition, n_genes)
    assert found.slope == pytest.approx(_by_hand(imputed, raw, condition, n_genes))
    assert found.n_genes == min(n_genes, 50)


def test_nothing_changed_is_one_and_conditions_made_alike_are_zero():
    raw, condition = _case()
    assert difference_kept(raw, raw, condition).slope == pytest.approx(1)
    alike = np.tile(raw.mean(0), (len(raw), 1))
    assert difference_kept(alike, raw, condition).slope == pytest.approx(0, abs=1e-9)
    assert difference_kept(raw[::-1], raw, condition).slope == pytest.approx(-1)  # the conditions exchanged


def test_what_cannot_be_compared_is_refused():
    raw, condition = _case()
    with pytest.raises(ValueError, match="got 1 different"):
        difference_kept(raw, raw, ["a"] * len(raw))
    with pytest.raises(ValueError, match="n_genes"):
        difference_kept(raw, raw, condition, 1)
    with pytest.raises(ValueError, match="no gene differs"):
        difference_kept(raw, np.ones_like(raw), condition)
    with pytest.raises(ValueError, match="no counts"):
        difference_kept(raw, raw * (condition == "control")[:, None], condition)
