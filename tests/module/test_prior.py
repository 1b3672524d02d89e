import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Normal

from scgacl_scvi.module import MixturePrior


def _prior(n_components=6, active=4, n_latent=3, n_labels=0, seed=0) -> MixturePrior:
    generator = torch.Generator().manual_seed(seed)
    prior = MixturePrior(n_components, n_latent, n_labels)
    prior.initialise(
        torch.randn(active, n_latent, generator=generator) * 2,
        torch.rand(active, n_latent, generator=generator) + 0.2,
        torch.rand(active, generator=generator) + 0.1,
    )
    return prior


def _as_sklearn(prior: MixturePrior) -> GaussianMixture:
    on = prior.active
    mixture = GaussianMixture(int(on.sum()), covariance_type="diag")
    mixture.weights_ = torch.softmax(prior.logits[on], 0).detach().numpy()
    mixture.means_ = prior.loc[on].detach().numpy()
    mixture.covariances_ = prior.log_scale[on].exp().square().detach().numpy()
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    return mixture


def test_density_and_responsibilities_agree_with_scikit_learn():
    prior, z = _prior(), torch.randn(50, 3)
    mixture = _as_sklearn(prior)
    log_prob = torch.logsumexp(prior.component_log_prob(z) + prior.log_weights(), -1)
    np.testing.assert_allclose(log_prob.detach(), mixture.score_samples(z.numpy()), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(prior.distribution().log_prob(z).detach(), log_prob.detach(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        prior.responsibilities(z)[:, prior.active].detach(), mixture.predict_proba(z.numpy()), atol=1e-4
    )


def test_kl_bound_is_exact_for_one_component_and_never_below_the_true_kl():
    qz = Normal(torch.randn(8, 3), torch.rand(8, 3) + 0.1)
    one = _prior(active=1)
    exact = torch.distributions.kl_divergence(qz, Normal(one.loc[0], one.log_scale[0].exp())).sum(-1)
    torch.testing.assert_close(one.kl(qz), exact)
    prior = _prior()
    z = qz.sample((20_000,))
    true = (qz.log_prob(z).sum(-1) - prior.distribution().log_prob(z)).mean(0)
    assert (prior.kl(qz) >= true - 0.05).all()


def test_sampled_kl_is_never_below_the_bound():
    """The bound has the best responsibilities there are (Jiang et al. 2017)."""
    prior, qz = _prior(), Normal(torch.randn(30, 3), torch.rand(30, 3) + 0.1)
    assert (prior.kl_sampled(qz, qz.sample()) >= prior.kl(qz) - 1e-4).all()


def test_retired_components_have_no_weight_and_no_nan_gradient():
    prior, qz = _prior(), Normal(torch.randn(5, 3), torch.ones(5, 3))
    assert prior.n_active == 4
    assert (prior.responsibilities(torch.randn(9, 3))[:, 4:] == 0).all()
    (prior.kl(qz).sum() + prior.kl_sampled(qz, qz.sample()).sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in prior.parameters() if p.grad is not None)


def test_labels_guide_softly_and_the_unlabelled_follow_the_weights():
    prior = _prior(n_components=4, active=4, n_labels=3)
    weights = prior.log_weights(torch.tensor([0, 2, 3])).exp()
    slip = torch.sigmoid(prior.slip_logit)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3))
    torch.testing.assert_close(weights[0], torch.stack([1 - slip, slip / 3, slip / 3, slip / 3]))
    torch.testing.assert_close(weights[2], prior.log_weights().exp())


def test_one_label_and_one_component_give_a_certain_component():
    prior = _prior(n_components=1, active=1, n_labels=1)
    assert prior.responsibilities(torch.randn(4, 3), torch.tensor([0, 0, 1, 1])).tolist() == [[1.0]] * 4


def test_contradicted_labels_make_the_slip_grow():
    prior = _prior(n_components=2, active=2, n_labels=2)
    prior.initialise(torch.tensor([[-5.0] * 3, [5.0] * 3]), torch.ones(2, 3), torch.ones(2))
    qz = Normal(torch.full((6, 3), 5.0), torch.ones(6, 3))
    prior.kl(qz, torch.zeros(6, dtype=torch.long)).sum().backward()
    assert prior.slip_logit.grad < 0  # descent raises it


@pytest.mark.parametrize("k", [1, 2, 5])
def test_samples_come_from_the_mixture(k):
    prior = _prior(n_components=5, active=k)
    draws = prior.distribution().sample((4000,)).numpy()
    mixture = _as_sklearn(prior)
    np.testing.assert_allclose(draws.mean(0), mixture.weights_ @ mixture.means_, atol=0.2)


# --- strata ----------------------------------------------------------------------------------------------------


def _stratified(n_labels: int = 0) -> tuple[MixturePrior, list[MixturePrior]]:
    """A prior of two strata, and that of each stratum by itself."""
    alone = [_prior(5, active, n_labels=n_labels, seed=seed) for seed, active in ((1, 4), (2, 3))]
    both = MixturePrior(5, 3, n_labels, n_strata=2)
    for stratum, prior in enumerate(alone):
        on, share = prior.active, (0.7, 0.3)[stratum]
        weights = torch.softmax(prior.logits[on], 0).detach() * share
        both.initialise(prior.loc[on].detach(), prior.log_scale[on].exp().square().detach(), weights, stratum)
    return both, alone


@pytest.mark.parametrize("n_labels", [0, 2])
def test_each_stratum_has_a_mixture_of_its_own(n_labels):
    both, alone = _stratified(n_labels)
    strata = torch.arange(20) % 2
    z, scale = torch.randn(20, 3), torch.rand(20, 3) + 0.1
    labels = torch.arange(20) % 3 if n_labels else None
    for stratum, prior in enumerate(alone):
        rows = strata == stratum
        own = None if labels is None else labels[rows]
        found = both.responsibilities(z, labels, strata)[rows]
        theirs = slice((1 - stratum) * 5, (2 - stratum) * 5)
        assert (found[:, theirs] == 0).all()
        mine = slice(stratum * 5, (stratum + 1) * 5)
        torch.testing.assert_close(found[:, mine], prior.responsibilities(z[rows], own), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(both.log_prob(z, strata)[rows], prior.log_prob(z[rows]), atol=1e-5, rtol=1e-5)
        qz = Normal(z, scale)
        kl = prior.kl(Normal(z[rows], scale[rows]), own)
        torch.testing.assert_close(both.kl(qz, labels, strata)[rows], kl, atol=1e-5, rtol=1e-4)


def test_a_cell_gives_no_gradient_to_components_of_another_stratum():
    both, _ = _stratified()
    both.kl(Normal(torch.randn(8, 3), torch.ones(8, 3)), None, torch.zeros(8, dtype=torch.int64)).sum().backward()
    for parameter in (both.loc, both.log_scale, both.logits):
        assert (parameter.grad[5:] == 0).all()
        assert (parameter.grad[:4] != 0).any()


def test_a_label_has_a_component_in_each_stratum():
    both, _ = _stratified(n_labels=2)
    labels, strata = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    assert both.component_of(labels, strata).tolist() == [0, 1, 5, 6]
    weights = both.log_weights(labels, strata).exp()
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    assert (weights.argmax(1) == both.component_of(labels, strata)).all()
