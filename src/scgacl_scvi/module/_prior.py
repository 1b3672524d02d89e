"""Gaussian-mixture prior of the latent space, softly guided by labels, and one for each stratum of the cells."""

import torch
import torch.nn.functional as F
from pyro.distributions import MixtureOfDiagNormals
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

_MIN_VARIANCE = 1e-4
_EM_STEPS = 50
_SLIP_RANGE = (0.01, 0.95)


class MixturePrior(nn.Module):
    """Mixture of diagonal normals with learnt weights, means and scales.

    The number of components in use may be smaller than ``n_components`` (when BIC chooses it after the autoencoder
    phase): components that are not ``active`` have weight zero. So the shapes are known before training, and a saved
    model loads without being told what BIC chose.

    Parameters
    ----------
    n_components
        Largest number of mixture components of a stratum.
    n_latent
        Dimensionality of the latent space; at least 2 (pyro's mixture needs it).
    n_labels
        Number of labels, which guide the first ``n_labels`` components (of each stratum); 0 for none.
    n_strata
        Groups of cells (conditions) that share no component; those of stratum s are numbered from
        ``s * n_components`` on.
    """

    def __init__(self, n_components: int, n_latent: int, n_labels: int = 0, n_strata: int = 1):
        super().__init__()
        self.n_labels = n_labels
        self.n_strata = n_strata
        self.n_of_stratum = n_components
        n_components = n_strata * n_components
        self.logits = nn.Parameter(torch.zeros(n_components))
        self.loc = nn.Parameter(torch.zeros(n_components, n_latent))
        self.log_scale = nn.Parameter(torch.zeros(n_components, n_latent))
        # p(component | label) is 1 - slip on the label's own component; learnt, so that wrong labels cost little.
        self.slip_logit = nn.Parameter(torch.tensor(-3.0))
        self.register_buffer("active", torch.ones(n_components, dtype=torch.bool))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def n_active(self) -> int:
        """Number of components in use."""
        return int(self.active.sum())

    def initialise(self, means: Tensor, variances: Tensor, weights: Tensor, stratum: int = 0) -> None:
        """Set the first ``len(means)`` components of a stratum (K x D, K x D, K) and retire its others."""
        first, k = stratum * self.n_of_stratum, len(means)
        own = slice(first, first + k)
        with torch.no_grad():
            self.active[first : first + self.n_of_stratum] = False
            self.active[own] = True
            self.loc[own] = means.to(self.loc)
            self.log_scale[own] = 0.5 * variances.clamp_min(_MIN_VARIANCE).log().to(self.loc)
            self.logits[own] = weights.clamp_min(1e-6).log().to(self.loc)
            self.fitted.fill_(True)

    @torch.no_grad()
    def fit_slip(self, z: Tensor, labels: Tensor, strata: Tensor | None = None) -> None:
        """Start from the share of wrong labels that is likeliest given where the labelled cells lie (EM).

        Parameters
        ----------
        z
            Latent means, cells x D.
        labels, strata
            As :meth:`log_weights`.
        """
        known = labels < self.n_labels
        allowed = (self.active if strata is None else self.active & self._of(strata)).expand(len(z), -1)[known]
        if not len(allowed) or int(allowed.sum(-1).max()) < 2:
            return
        density = torch.softmax(self.component_log_prob(z)[known].masked_fill(~allowed, -torch.inf), -1)
        own = density.gather(1, self.component_of(labels, strata)[known, None]).squeeze(1)
        others = (1 - own) / (allowed.sum(-1) - 1).clamp_min(1)  # mean density of the components that are not its own
        slip = torch.sigmoid(self.slip_logit)
        for _ in range(_EM_STEPS):
            slip = (slip * others / ((1 - slip) * own + slip * others).clamp_min(1e-30)).mean().clamp(*_SLIP_RANGE)
        self.slip_logit.copy_(torch.logit(slip))

    def distribution(self) -> MixtureOfDiagNormals:
        """The mixture over its active components."""
        on = self.active
        return MixtureOfDiagNormals(self.loc[on], self.log_scale[on].exp(), self.logits[on])

    def log_weights(self, labels: Tensor | None = None, strata: Tensor | None = None) -> Tensor:
        """Log-probability of each component: K, or cells x K given labels or strata.

        Parameters
        ----------
        labels
            Codes, cells; ``>= n_labels`` is unlabelled.
        strata
            Codes, cells: only components of a cell's own stratum have a weight. None: all have.
        """
        allowed = self.active if strata is None else self.active & self._of(strata)
        weights = F.log_softmax(self.logits.masked_fill(~allowed, -torch.inf), -1)
        if labels is None or self.n_labels == 0:
            return weights
        known = labels < self.n_labels
        own = F.one_hot(self.component_of(labels, strata), len(self.logits)).bool() & known[:, None]  # cells x K
        spread = F.logsigmoid(self.slip_logit) - torch.log((allowed.sum(-1, keepdim=True) - 1).clamp_min(1).float())
        guided = torch.where(own, F.logsigmoid(-self.slip_logit), spread).masked_fill(~allowed, -torch.inf)
        return torch.where(known[:, None], guided, weights)

    def component_of(self, labels: Tensor, strata: Tensor | None = None) -> Tensor:
        """Number of the component that a label guides in its stratum (cells); meaningless for the unlabelled."""
        own = labels.clamp_max(self.n_labels - 1)
        return own if strata is None else strata * self.n_of_stratum + own

    def _of(self, strata: Tensor) -> Tensor:
        """Which components are those of each cell's stratum, cells x K."""
        components = torch.arange(len(self.logits), device=strata.device)
        return components.div(self.n_of_stratum, rounding_mode="floor") == strata[:, None]

    def component_log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z`` (... x D) under each component: ... x K."""
        return self._components().log_prob(z.unsqueeze(-2)).sum(-1)

    def log_prob(self, z: Tensor, strata: Tensor | None = None) -> Tensor:
        """Log-density of ``z`` (cells x D) under the mixture of each cell's stratum: cells."""
        return torch.logsumexp(self.component_log_prob(z) + self.log_weights(None, strata), -1)

    def responsibilities(self, z: Tensor, labels: Tensor | None = None, strata: Tensor | None = None) -> Tensor:
        """Posterior probability of each component given ``z`` (cells x D): cells x K."""
        return torch.softmax(self.component_log_prob(z) + self.log_weights(labels, strata), -1)

    def _component_kl(self, qz: Normal) -> Tensor:
        """KL from each cell's posterior (cells x D) to each component: cells x K."""
        wide = Normal(qz.loc.unsqueeze(-2), qz.scale.unsqueeze(-2), validate_args=False)
        return kl_divergence(wide, self._components()).sum(-1)

    def _components(self) -> Normal:
        return Normal(self.loc, self.log_scale.exp(), validate_args=False)

    def kl(self, qz: Normal, labels: Tensor | None = None, strata: Tensor | None = None) -> Tensor:
        """Upper bound on KL(qz || mixture), one value a cell, without sampling.

        ``-log sum_c p(c) exp(-KL(qz || component c))`` (Hershey & Olsen 2007, the variational bound for a single
        left-hand component) is the VaDE objective (Jiang et al. 2017) at its best responsibilities; the ELBO with it
        stays a lower bound, and it is exact for one component.
        """
        return -torch.logsumexp(self.log_weights(labels, strata) - self._component_kl(qz), -1)

    def kl_sampled(self, qz: Normal, z: Tensor) -> Tensor:
        """VaDE's KL with responsibilities taken from the sampled ``z``, as scGACL has it; one value a cell."""
        log_weights = self.log_weights()
        log_gamma = torch.log_softmax(self.component_log_prob(z) + log_weights, -1)
        gamma = log_gamma.exp()
        # A retired component has gamma 0 and log-weight -inf; their product is 0, not NaN.
        cost = torch.where(gamma > 0, log_gamma - log_weights + self._component_kl(qz), 0.0)
        return (gamma * cost).sum(-1)
