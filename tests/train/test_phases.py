import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgacl_scvi.train import Phase, Phases

epochs = st.integers(0, 30)


@given(epochs, epochs, epochs)
def test_every_epoch_belongs_to_one_phase_in_order(a, v, j):
    phases = Phases(a, v, j)
    found = [phases.at(epoch) for epoch in range(phases.total)]
    assert [phase for phase, _ in found] == [Phase.AUTOENCODER] * a + [Phase.VADE] * v + [Phase.JOINT] * j
    assert [epoch for _, epoch in found] == [*range(a), *range(v), *range(j)]


@given(epochs, epochs, epochs)
def test_ranges_cover_all_epochs_and_leave_empty_phases_out(a, v, j):
    ranges = Phases(a, v, j).ranges()
    assert sum(last - first for first, last in ranges.values()) == a + v + j
    assert all(last > first for first, last in ranges.values())


def test_negative_epochs_are_refused():
    with pytest.raises(ValueError, match="vade"):
        Phases(1, -1, 1)
