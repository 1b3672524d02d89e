"""Training: the plan with its phases, the in-memory loader, callbacks."""

from ._callbacks import RestoreBest
from ._loader import CellLoader, registered_matrix
from ._logger import EpochLogger
from ._phases import Phase, Phases
from ._plan import SCGACLTrainingPlan
from ._splitter import CellSplitter

__all__ = [
    "CellLoader",
    "CellSplitter",
    "EpochLogger",
    "Phase",
    "Phases",
    "RestoreBest",
    "SCGACLTrainingPlan",
    "registered_matrix",
]
