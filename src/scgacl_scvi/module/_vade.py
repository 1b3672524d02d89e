"""VaDE: a variational autoencoder with a Gaussian-mixture prior, and the multi-task discriminator of scGACL."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial, ZeroInflatedNegativeBinomial
from scvi.distributions import Normal as ScviNormal
from scvi.module.base import BaseModuleClass, auto_move_data
from torch import Tensor, nn
from torch.distributions import Normal

from ._clusters import ClassesMixin, KMeansClasses
from ._dropout_curve import DropoutCurve
from ._evidence import EvidenceMixin
from ._gate import GeneGate
from ._groups import GroupsMixin
from ._networks import Discriminator, Encoder, Generator, initialise_published
from ._nonzeros import Nonzeros
from ._prior import MixturePrior
from ._residual import ResidualMixture
from ._sampling import SamplingMixin

Likelihood = Literal["nb", "zinb", "normal"]


class VaDE(GroupsMixin, ClassesMixin, EvidenceMixin, SamplingMixin, BaseModuleClass):
    """Generator (VaDE) and discriminator of scGACL.

    Tensors only: cells x genes of counts (or of lognorm values, see ``input_scale``), codes of labels and batches.

    Parameters
    ----------
    n_input
        Number of genes.
    n_labels
        Number of labels, without the unlabelled category; 0 for none.
    n_batch, n_cats_per_cov, n_continuous_cov
        Sizes of the covariates, which enter the generator.
    encode_covariates
        Whether they enter the encoder, too.
    n_hidden
        Nodes of each hidden layer of the encoder; the generator has them in reverse.
    n_hidden_discriminator
        Nodes of each hidden layer of the discriminator.
    n_latent
        Dimensionality of the latent space.
    n_strata
        Groups of cells that share neither components of the prior nor pairs of a contrast.
    n_components
        Largest number of components of the prior (in each stratum).
    dispersion
        ``"gene"``, or ``"gene-batch"`` for one of each gene in each batch.
    dropout_rate
        Dropout in the encoder's hidden layers.
    hide_rate
        Share of the profile that is hidden from the encoder while training; all of it is still to be predicted.
    gene_likelihood
        ``"nb"``: mean = library x softmax. ``"zinb"``: unnormalised mean, since a softmax over what dropout left
        cannot represent what it hides. ``"normal"``: lognorm, on the observed entries only.
    input_scale
        ``"counts"``, or ``"lognorm"`` where X already is on that scale (then only ``"normal"``).
    use_size_factor
        Whether the library size is the registered size factor times the median library, not the sum over genes.
    preset
        ``"paper"`` has the published networks: BatchNorm in the encoder, none in the generator, a ReLU output on the
        lognorm scale, N(0, 0.02) weights, squared error averaged over genes.
    """

    def __init__(
        self,
        n_input: int,
        *,
        n_labels: int = 0,
        n_strata: int = 1,
        n_batch: int = 1,
        n_cats_per_cov: Sequence[int] | None = None,
        n_continuous_cov: int = 0,
        encode_covariates: bool = False,
        n_hidden: Sequence[int] = (128, 128),
        n_hidden_discriminator: Sequence[int] = (256, 256),
        n_latent: int = 10,
        n_components: int = 20,
        dropout_rate: float = 0.1,
        hide_rate: float = 0.2,
        gene_likelihood: Likelihood = "nb",
        dispersion: Literal["gene", "gene-batch"] = "gene",
        input_scale: Literal["counts", "lognorm"] = "counts",
        use_size_factor: bool = False,
        preset: Literal["default", "paper"] = "default",
    ):
        super().__init__()
        self.n_latent = n_latent
        self.n_labels = n_labels
        self.n_strata = n_strata
        self.n_batch = n_batch
        self.encode_covariates = encode_covariates
        self.hide_rate = hide_rate
        self.gene_likelihood = gene_likelihood
        self.input_scale = input_scale
        self.use_size_factor = use_size_factor
        self.published = preset == "paper"

        covariates = {"n_cat_list": [n_batch, *(n_cats_per_cov or ())], "n_cont": n_continuous_cov}
        self.encoder = Encoder(
            n_input,
            n_latent,
            n_hidden,
            norm="batch" if self.published else "layer",
            dropout_rate=dropout_rate,
            **(covariates if encode_covariates else {}),
        )
        self.decoder = Generator(
            n_latent,
            n_input,
            tuple(reversed(n_hidden)),
            zi=gene_likelihood == "zinb",
            norm=None if self.published else "layer",
            **covariates,
        )
        self.discriminator = Discriminator(n_input, n_hidden_discriminator)
        self.prior = MixturePrior(n_components, n_latent, n_labels, n_strata)
        # Logarithm of the inverse dispersion of counts, or of the standard deviation of lognorm values; one a gene (of
        # counts also one a batch and gene).
        shape = (n_batch, n_input) if dispersion == "gene-batch" else (n_input,)
        self.log_theta = nn.Parameter(torch.full(shape, 1.0 if gene_likelihood != "normal" else 0.0))
        self.register_buffer("n_trained_batches", torch.tensor(n_batch))  # fewer than all beside a reference
        self.n_frozen_batches = 0  # while a query trains: those of the reference
        self.register_buffer("median_library", torch.tensor(1.0))
        self.register_buffer("gene_seen", torch.ones(n_input, dtype=torch.bool))
        # No unnormalised mean lies far above the largest value of the data: an overshoot of exp() would not come back.
        self.register_buffer("max_log_mean", torch.tensor(12.0))
        # Of the groups of genes, a cell keeps one from training (its key in a batch says which).
        self.register_buffer("gene_group", torch.zeros(n_input, dtype=torch.uint8))
        # Fitted after training: how far each gene follows the generator, and which zeros hide a count.
        # (Dropout takes from a library what it happens to take of its strongest genes: no composition.)
        self.gate = GeneGate(n_strata * n_components, n_input, n_batch, n_strata, gene_likelihood == "nb")
        self.residual = ResidualMixture(n_input)
        self.dropout_curve = DropoutCurve(n_input) if gene_likelihood == "zinb" else None
        # Published classes: k-means, once for the contrast and once more for the dropout rule.
        self.kmeans = KMeansClasses(n_input, n_components) if self.published else None
        self.kmeans_dropout = KMeansClasses(n_input, n_components) if self.published else None
        if gene_likelihood == "normal":
            n_classes = n_strata * n_components + (n_labels if self.published else 0)
            self.register_buffer("zero_dropout", torch.zeros(n_classes, n_input))
        if self.published:
            for network in (self.encoder, self.decoder, self.discriminator):
                initialise_published(network)
        else:
            for network in (self.encoder, self.discriminator):
                network.hidden.store_by_gene()

    # --- what the data say before training ---------------------------------------------------------------------

    @torch.no_grad()
    def set_data_statistics(self, median_library: float, gene_means: np.ndarray, largest: float) -> None:
        """Take the median library size m (counts), each gene's mean at depth m (or its mean lognorm value).

        And the largest entry at depth m (or the largest lognorm value).

        The generator starts at the gene means: it has to learn only what differs between cells. A gene that no cell
        shows is never filled.
        """
        self.median_library.fill_(float(median_library))
        self.gene_seen.copy_(torch.as_tensor(gene_means > 0))
        self.max_log_mean.fill_(float(np.log(max(largest, 1.0))) + 2.0)
        self.gate.log_mean.copy_(torch.as_tensor(gene_means, dtype=torch.float32).clamp_min(1e-9).log())
        self.gate.depth_reference.copy_(self.gate.log_mean)
        if self.published:
            return
        means = torch.as_tensor(gene_means, dtype=torch.float32)
        if self.gene_likelihood == "normal":
            bias = torch.log(torch.expm1(means.clamp_min(1e-3)))  # inverse of softplus
        else:
            bias = torch.log(means + 1e-6)
        self.decoder.output.bias.copy_(bias)

    @property
    def device(self) -> torch.device:
        """Where the parameters are; scvi-tools looks at each of them, some hundred times a fit."""
        return self.log_theta.device

    # --- the three calls of scvi-tools -------------------------------------------------------------------------

    def _get_inference_input(self, tensors: dict[str, Tensor], **_) -> dict[str, Tensor | None]:
        return {
            "x": tensors[REGISTRY_KEYS.X_KEY],
            "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
            "cont_covs": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
            "cat_covs": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY),
            "size_factor": tensors.get(REGISTRY_KEYS.SIZE_FACTOR_KEY) if self.use_size_factor else None,
            "visible": self.visible(tensors),
        }

    def _get_generative_input(self, tensors: dict[str, Tensor], inference_outputs: dict, **_) -> dict:
        return {
            "z": inference_outputs["z"],
            "library": inference_outputs["library"],
            "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY],
            "cont_covs": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY),
            "cat_covs": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY),
        }

    def library(self, total: Tensor, size_factor: Tensor | None = None, visible: Tensor | None = None) -> Tensor:
        """Library size of each cell (counts), cells x 1, from its visible counts; the median one for lognorm input.

        Of a cell that keeps genes from training, or has unmeasured ones, it is estimated from the others, by their
        usual share of a library: the sum over all would tell the encoder what was held out.
        """
        if size_factor is not None:
            return size_factor * self.median_library
        if self.input_scale == "lognorm":
            return self.median_library.expand(len(total), 1)
        if visible is None:
            return total.clamp_min(1.0)
        share = torch.softmax(self.gate.log_mean, 0)
        usual = (visible @ share)[:, None].clamp_min(1e-3)
        return (total / usual).clamp_min(1.0)

    def lognorm(self, x: Tensor, library: Tensor) -> Tensor:
        """``log1p(x / library * m)``; lognorm input is returned as it is."""
        return x if self.input_scale == "lognorm" else torch.log1p(x * (self.median_library / library))

    def encode(
        self,
        x: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        size_factor: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> dict[str, Tensor | Normal | None]:
        """Posterior of z, without drawing from it.

        ``profile`` (lognorm, 0 where not visible), ``library`` (counts, cells x 1), ``qz``, ``visible``, ``nonzeros``
        (those that are visible).
        """
        # Nothing is computed, nor hidden at random, but the non-zeros that training may see.
        nonzeros = Nonzeros(x, visible)
        library = self.library(nonzeros.sum_by_row(nonzeros.values)[:, None], size_factor, visible)
        values = self.lognorm(nonzeros.values, library.expand(len(x), 1)[:, 0][nonzeros.row])
        profile = nonzeros.dense(values)
        if self.training and self.hide_rate > 0:
            values = values * (torch.rand_like(values) >= self.hide_rate)
        covariates = self._categories(batch_index, cat_covs) if self.encode_covariates else ()
        cont = cont_covs if self.encode_covariates else None
        qz = self.encoder(values, *covariates, cont=cont, nonzeros=nonzeros)
        return {"profile": profile, "library": library, "qz": qz, "visible": visible, "nonzeros": nonzeros}

    @auto_move_data
    def inference(self, *args, n_samples: int = 1, **kwargs) -> dict[str, Tensor | Normal]:
        """As :meth:`encode`, and ``z`` drawn from the posterior (``n_samples > 1``: samples x cells x latent)."""
        encoded = self.encode(*args, **kwargs)
        return {**encoded, "z": encoded["qz"].rsample() if n_samples == 1 else encoded["qz"].rsample((n_samples,))}

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        cont_covs: Tensor | None = None,
        cat_covs: Tensor | None = None,
        transform_batch: int | None = None,
        distribution: bool = True,
    ) -> dict[str, Tensor]:
        """Parameters of the likelihood given z.

        Parameters
        ----------
        z, library, batch_index, cont_covs, cat_covs, transform_batch
            As in scvi-tools.
        distribution
            Whether to make ``px``.

        Returns
        -------
        ``scale``: the mean at the reference depth m (counts), or the lognorm mean for ``"normal"``; ``rate``: the mean
        at the cell's own depth (counts; the same as ``scale`` for ``"normal"``); ``theta``: the inverse dispersion of
        counts, genes or cells x genes; ``zi_logits`` (``"zinb"``); ``px``: the distribution, as scvi-tools expects it.
        """
        if transform_batch is not None:
            batch_index = torch.full_like(batch_index, transform_batch)
        output, zi_logits = self.decoder(z, *self._categories(batch_index, cat_covs), cont=cont_covs)
        if self.gene_likelihood == "normal":
            mean = torch.relu(output) if self.published else nn.functional.softplus(output)
            px = ScviNormal(mean, self.log_theta.exp(), normal_mu=mean, validate_args=False)
            return {"scale": mean, "rate": mean, "px": px}
        if self.gene_likelihood == "nb":
            frequency = torch.softmax(output, -1)
            scale, rate = frequency * self.median_library, frequency * library
        else:
            scale = output.clamp_max(self.max_log_mean).exp()
            rate = scale * (library / self.median_library)
        theta = self.theta_of(batch_index)
        if not distribution:
            return {"scale": scale, "rate": rate, "theta": theta, "zi_logits": zi_logits}
        frequency = scale / self.median_library
        if zi_logits is None:
            px = NegativeBinomial(mu=rate, theta=theta, scale=frequency)
        else:
            px = ZeroInflatedNegativeBinomial(mu=rate, theta=theta, zi_logits=zi_logits, scale=frequency)
        return {"scale": scale, "rate": rate, "theta": theta, "zi_logits": zi_logits, "px": px}

    def predict(
        self, tensors: dict[str, Tensor], inferred: dict, transform_batch: int | None = None
    ) -> dict[str, Tensor]:
        """As :meth:`generative`, through the gate of each gene: what the getters take for a cell's mean."""
        own = self.generative(**self._get_generative_input(tensors, inferred), transform_batch=transform_batch)
        strata = self.strata(tensors)
        of_stratum = 1.0 if strata is None else self.gate.stratum_log_factor[strata].exp()
        if not self.gate.fitted:
            return own if strata is None else {**own, "scale": own["scale"] * of_stratum}
        responsibilities = self.responsibilities(inferred["z"], tensors)
        shift = self.gate_shift(tensors, transform_batch)
        mixed, correction = self.gate(own["scale"], responsibilities, self.theta, shift)
        scale, depth = self.gate.at_reference_depth(mixed, responsibilities), inferred["library"] / self.median_library
        theta = self.gated_theta_of(self.batch_codes(tensors, transform_batch))
        return {**own, "scale": scale * of_stratum, "rate": mixed * (depth * correction), "theta": theta}

    # --- pieces for the training plan and the getters ----------------------------------------------------------

    def reconstructed_profile(self, generated: dict[str, Tensor]) -> Tensor:
        """The generator's mean on the lognorm scale."""
        return generated["scale"] if self.gene_likelihood == "normal" else torch.log1p(generated["scale"])

    def _categories(self, batch_index: Tensor, cat_covs: Tensor | None) -> tuple[Tensor, ...]:
        return (batch_index, *(() if cat_covs is None else torch.split(cat_covs, 1, dim=1)))
