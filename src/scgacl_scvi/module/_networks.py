"""Encoder, generator and multi-task discriminator, as chains of scvi-tools' fully-connected layers."""

from collections.abc import Sequence

import torch
from scvi.nn import FCLayers
from torch import Tensor, nn
from torch.distributions import Normal

from ._nonzeros import Nonzeros
from ._sparse_linear import is_worth_it, sparse_linear


class Hidden(nn.Module):
    """Hidden layers of given widths; covariates enter each of them.

    Parameters
    ----------
    n_input
        Number of inputs.
    widths
        Nodes of each layer.
    n_cat_list, n_cont
        Categories of each categorical covariate, and number of continuous ones.
    norm
        ``"layer"``, ``"batch"`` or None.
    dropout_rate
        Dropout after each layer.
    activation
        Activation module class.
    """

    def __init__(
        self,
        n_input: int,
        widths: Sequence[int],
        *,
        n_cat_list: Sequence[int] = (),
        n_cont: int = 0,
        norm: str | None = "layer",
        dropout_rate: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            FCLayers(
                n_in,
                n_out,
                n_cat_list=n_cat_list,
                n_cont=n_cont,
                dropout_rate=dropout_rate,
                use_batch_norm=norm == "batch",
                use_layer_norm=norm == "layer",
                activation_fn=activation,
            )
            for n_in, n_out in zip((n_input, *widths[:-1]), widths, strict=True)
        )
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm1d):  # torch's own settings, which the published networks have
                layer.momentum, layer.eps = 0.1, 1e-5

    def forward(
        self, x: Tensor, *categories: Tensor, cont: Tensor | None = None, nonzeros: Nonzeros | None = None
    ) -> Tensor:
        """Hidden representation, cells x ``widths[-1]``; with ``nonzeros``, ``x`` is the input's values at these."""
        first, *others = self.layers
        plain = cont is None and all(n <= 1 for n in first.n_cat_list)
        if nonzeros is not None and plain and is_worth_it(nonzeros):
            linear, *rest = self.blocks()[0]
            x = sparse_linear(nonzeros, [x], linear.weight) + linear.bias
            for layer in rest:
                x = layer(x)
        else:
            x = first(x if nonzeros is None else nonzeros.dense(x), *categories, cont=cont)
        for layer in others:
            x = layer(x, *categories, cont=cont)
        return x

    def store_by_gene(self) -> None:
        """Keep the first weight (nodes x genes) gene by gene in memory, as the product with non-zeros reads it."""
        linear = self.blocks()[0][0]
        linear.weight = nn.Parameter(linear.weight.detach().t().contiguous().t())

    def blocks(self) -> list[list[nn.Module]]:
        """What each layer consists of: a linear map, then the others in their order."""
        return [[part for part in block if part is not None] for layer in self.layers for block in layer.fc_layers]


class Encoder(nn.Module):
    """Lognorm profile to the posterior of z (a diagonal normal).

    The log-variance head starts at a constant -3: starting from unit variance on high counts makes the generator
    ignore z for good.
    """

    def __init__(self, n_input: int, n_latent: int, widths: Sequence[int], **hidden_kwargs):
        super().__init__()
        self.hidden = Hidden(n_input, widths, **hidden_kwargs)
        self.mean = nn.Linear(widths[-1], n_latent)
        self.log_variance = nn.Linear(widths[-1], n_latent)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, -3.0)

    def forward(
        self, x: Tensor, *categories: Tensor, cont: Tensor | None = None, nonzeros: Nonzeros | None = None
    ) -> Normal:
        """Posterior of z, cells x ``n_latent``; with ``nonzeros``, ``x`` is the profile's values at these."""
        h = self.hidden(x, *categories, cont=cont, nonzeros=nonzeros)
        return Normal(self.mean(h), (0.5 * self.log_variance(h).clamp(-10, 5)).exp(), validate_args=False)


class Generator(nn.Module):
    """Latent z to one unbounded output a gene, and for ``zi=True`` also the logits of the dropout probability."""

    def __init__(self, n_latent: int, n_output: int, widths: Sequence[int], *, zi: bool, **hidden_kwargs):
        super().__init__()
        self.hidden = Hidden(n_latent, widths, **hidden_kwargs)
        self.output = nn.Linear(widths[-1], n_output)
        self.zi = nn.Linear(widths[-1], n_output) if zi else None

    def forward(self, z: Tensor, *categories: Tensor, cont: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Output and dropout logits, each cells x genes."""
        h = self.hidden(z, *categories, cont=cont)
        return self.output(h), None if self.zi is None else self.zi(h)


class Discriminator(nn.Module):
    """Multi-task discriminator on lognorm profiles: one trunk, three heads.

    Returns the logit of "real" (cells), and the projections for the cell-level and for the type-level contrastive
    loss (cells x ``n_projection`` each).
    """

    def __init__(self, n_input: int, widths: Sequence[int], n_projection: int = 10):
        super().__init__()
        self.hidden = Hidden(n_input, widths, norm="batch", activation=nn.LeakyReLU)
        self.real = nn.Linear(widths[-1], 1)
        self.cell = nn.Linear(widths[-1], n_projection)
        self.kind = nn.Linear(widths[-1], n_projection)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit of "real", cell-level projection, type-level projection."""
        return self._heads(self.hidden(x))

    def judge_both(
        self, real: Tensor, fake: Tensor, nonzeros: Nonzeros | None = None
    ) -> tuple[tuple, tuple, "FirstLayer"]:
        """:meth:`forward` of real profiles and of as many reconstructed ones in one pass.

        Statistics of batch normalisation are those of each kind apart, as in two passes. No gradient reaches the
        profiles; what the reconstructed ones would get is told by the third result.

        Parameters
        ----------
        real, fake
            Cells x genes each, or with ``nonzeros`` their values at these (elsewhere both are 0).
        nonzeros
            Non-zeros of the profiles.
        """
        first, *others = [part for block in self.hidden.blocks() for part in block]
        if nonzeros is None:
            start = h = first(torch.cat([real, fake]).detach())
        else:
            start = h = sparse_linear(nonzeros, [real, fake], first.weight) + first.bias
        for layer in others:
            h = torch.cat([layer(half) for half in h.chunk(2)]) if isinstance(layer, nn.BatchNorm1d) else layer(h)
        outputs = [output.chunk(2) for output in self._heads(h)]
        return *zip(*outputs, strict=True), FirstLayer(start, first.weight, nonzeros)

    def _heads(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.real(h).squeeze(-1), self.cell(h), self.kind(h)


class FirstLayer:
    """First layer of a pass of :meth:`Discriminator.judge_both`.

    Parameters
    ----------
    values
        Its output, real and reconstructed cells x nodes.
    weight
        Its weight, nodes x genes.
    nonzeros
        Those of the profiles, if only these were given.
    """

    def __init__(self, values: Tensor, weight: Tensor, nonzeros: Nonzeros | None):
        self.values, self.weight, self.nonzeros = values, weight, nonzeros

    def slope(self, loss: Tensor) -> Tensor:
        """Gradient of a loss by the reconstructed profiles, as they were given; none by the weights."""
        [gradient] = torch.autograd.grad(loss, self.values, retain_graph=True)
        slope = gradient[len(gradient) // 2 :] @ self.weight.detach()
        return slope if self.nonzeros is None else self.nonzeros.of(slope)


def initialise_published(network: nn.Module) -> None:
    """Linear weights ~ N(0, 0.02) and zero biases, as the published networks start."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.weight.normal_(0.0, 0.02)
                layer.bias.zero_()
