"""The two contrastive losses of scGACL as pure functions of features."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.9, strata: Tensor | None = None) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views of the same cells (Chen et al. 2020, eq. 1).

    Each of the 2B rows has one positive, the other view of its cell; the other 2B - 2 rows are negatives.

    Parameters
    ----------
    first, second
        Features of the two views, cells x dimensions; rows need not be normalised.
    temperature
        Divides the cosine similarities.
    strata
        Group of each cell: only cells of the same one are negatives. None: all are.

    Returns
    -------
    Scalar, averaged over the 2B rows. A zero (with a graph) for fewer than two cells, which have no negatives.
    """
    n = len(first)
    features = F.normalize(torch.cat([first, second]), dim=-1)
    if n < 2:
        return features.sum() * 0.0
    similarity = features @ features.T / temperature
    similarity = similarity.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=features.device), -torch.inf)
    if strata is not None:
        strata = torch.cat([strata, strata])
        similarity = similarity.masked_fill(strata[:, None] != strata, -torch.inf)
    positive = torch.arange(2 * n, device=features.device).roll(n)
    return F.cross_entropy(similarity, positive)


def sup_con(
    features: Tensor,
    labels: Tensor,
    temperature: float = 0.9,
    base_temperature: float = 0.7,
    strata: Tensor | None = None,
) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2, the sum outside the logarithm).

    Parameters
    ----------
    features
        Rows x dimensions; rows need not be normalised.
    labels
        Integer class of each row.
    temperature, base_temperature
        Similarities are divided by ``temperature``; the loss is multiplied by their quotient.
    strata
        Group of each row: rows of other ones are no positives and no negatives. None: all are compared.

    Returns
    -------
    Scalar, averaged over all rows; a row whose class no other row shares has no positive and adds zero.
    A zero (with a graph) for fewer than two rows.
    """
    features = F.normalize(features, dim=-1)
    if len(features) < 2:
        return features.sum() * 0.0
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    similarity = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    positive = (labels[:, None] == labels[None, :]) & ~itself
    if strata is not None:
        apart = strata[:, None] != strata
        positive = positive & ~apart
        # A row that is alone in its stratum has nothing to be compared with; it keeps all, and adds zero.
        similarity = similarity.masked_fill(apart & ~(apart | itself).all(1, keepdim=True), -torch.inf)
    log_prob = similarity - similarity.logsumexp(1, keepdim=True)
    summed = torch.where(positive, log_prob, 0.0).sum(1)
    return -(temperature / base_temperature) * (summed / positive.sum(1).clamp_min(1)).mean()
