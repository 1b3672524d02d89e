"""The three phases of training as a pure function of the epoch."""

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Phase of training."""

    AUTOENCODER = "autoencoder"
    VADE = "vade"
    JOINT = "joint"


@dataclass(frozen=True)
class Phases:
    """Epochs of each phase.

    Parameters
    ----------
    autoencoder, vade, joint
        Number of epochs; 0 leaves a phase out.
    """

    autoencoder: int
    vade: int
    joint: int

    def __post_init__(self):
        for name in ("autoencoder", "vade", "joint"):
            if getattr(self, name) < 0:
                raise ValueError(f"The number of epochs of the {name} phase is {getattr(self, name)}; give 0 or more.")

    @property
    def total(self) -> int:
        """Number of epochs of all phases."""
        return self.autoencoder + self.vade + self.joint

    def at(self, epoch: int) -> tuple[Phase, int]:
        """Phase of an epoch, and the number of the epoch within the phase (both from 0)."""
        if epoch < self.autoencoder:
            return Phase.AUTOENCODER, epoch
        epoch -= self.autoencoder
        if epoch < self.vade:
            return Phase.VADE, epoch
        return Phase.JOINT, epoch - self.vade

    def ranges(self) -> dict[str, tuple[int, int]]:
        """First and last-plus-one epoch of each phase that has any."""
        edges = (0, self.autoencoder, self.autoencoder + self.vade, self.total)
        return {
            str(phase): (first, last)
            for phase, first, last in zip(Phase, edges, edges[1:], strict=False)
            if last > first
        }
