"""A model as scvi-tools' criticism is to see it."""

from typing import Any


class Criticised:
    """A model whose samples are drawn given z only, and suffer the dropout of the data.

    Everything else is the model's; see :func:`for_criticism`.
    """

    def __init__(self, model: Any):
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def posterior_predictive_sample(self, *args, **kwargs) -> Any:
        """As the model's, with ``given_counts=False`` and, with ``"zinb"``, ``dropout=True``."""
        given = {"given_counts": False, "dropout": self._model.module.gene_likelihood == "zinb"}
        return self._model.posterior_predictive_sample(*args, **{**given, **kwargs})


def for_criticism(model: Any) -> Criticised:
    """The model as ``scvi.criticism`` compares models: by counts drawn given z only, dropout included.

    ``model.posterior_predictive_sample()`` draws given each entry's own count too and leaves dropout away: right for
    tests, but beside scvi-tools' models it would be the observed counts that are compared with themselves.

    Parameters
    ----------
    model
        A trained :class:`~scgacl_scvi.SCGACL` with a count likelihood.

    Returns
    -------
    What ``scvi.criticism.PosteriorPredictiveCheck`` and ``create_criticism_report`` take for a model; its samples are
    counts at the cell's own depth.

    Raises
    ------
    ValueError
        If the likelihood is ``"normal"``, which has no counts to draw.
    RuntimeError
        If the model is not trained.

    Examples
    --------
    >>> from scvi.criticism import PosteriorPredictiveCheck  # doctest: +SKIP
    >>> models = {"SCGACL": evaluate.for_criticism(model), "SCVI": scvi_model}  # doctest: +SKIP
    >>> check = PosteriorPredictiveCheck(adata, models, n_samples=10)  # doctest: +SKIP
    >>> check.zero_fraction()  # doctest: +SKIP
    """
    model._check_if_trained(warn=False)
    if model.module.gene_likelihood == "normal":
        raise ValueError("The 'normal' likelihood has no counts to draw, so there is nothing to criticise counts by.")
    return Criticised(model)
