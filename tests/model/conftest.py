"""Models of each kind, fitted once for all tests that only read from them."""

import numpy as np
import pytest
import scvi
from anndata import AnnData
from tests.conftest import make_counts

from scgacl_scvi import SCGACL

SHORT = {"pretrain_epochs": 2, "vade_epochs": 2, "joint_epochs": 2, "enable_progress_bar": False}
KINDS = ("nb", "zinb", "normal", "paper")


def short_fit(adata: AnnData, labels_key: str | None = None, setup: dict | None = None, **model) -> SCGACL:
    before, scvi.settings._seed = scvi.settings._seed, 0
    SCGACL.setup_anndata(adata, labels_key=labels_key, **(setup or {}))
    fitted = SCGACL(adata, **{"n_latent": 4, "n_hidden": 16, "n_hidden_discriminator": 16, **model})
    fitted.train(**SHORT)
    scvi.settings._seed = before
    return fitted


@pytest.fixture(scope="session")
def models() -> dict[str, SCGACL]:
    found = {}
    for kind in KINDS:
        adata = make_counts(dropout=0.4 if kind == "zinb" else 0.1)
        x = adata.X.toarray()
        x[:, 4] = 0  # a gene that no cell shows
        x[:, 5] = np.maximum(x[:, 5], 1)  # one that all show
        adata.X = x
        model = {"preset": "paper"} if kind == "paper" else {"gene_likelihood": kind}
        found[kind] = short_fit(adata, "cell_type", **model)
    return found
