"""Tensors only: the VaDE with its discriminator, likelihoods, posterior and contrastive losses."""

from ._contrastive import nt_xent, sup_con
from ._heldout import heldout_loss, hold_out
from ._likelihoods import masked_normal_log_likelihood, masked_squared_error, nb_log_likelihood, zinb_log_likelihood
from ._prior import MixturePrior
from ._vade import VaDE

__all__ = [
    "MixturePrior",
    "VaDE",
    "heldout_loss",
    "hold_out",
    "masked_normal_log_likelihood",
    "masked_squared_error",
    "nb_log_likelihood",
    "nt_xent",
    "sup_con",
    "zinb_log_likelihood",
]
