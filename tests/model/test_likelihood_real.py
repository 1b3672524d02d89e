"""The likelihood that is chosen for real read counts and UMI counts, and that the model says why."""

import logging

import anndata
import pytest

from scgacl_scvi import SCGACL

CHOICES = {
    "deng2014_subset133": "zinb",  # reads
    "baron_pancreas_hvg1000": "nb",
    "scmix_sc_celseq2": "nb",
    "paul15": "nb",
}


@pytest.mark.parametrize("name", CHOICES)
def test_reads_and_umi_counts_get_their_likelihood_and_the_reason(data_folder, name, caplog):
    adata = anndata.read_h5ad(data_folder / f"{name}.h5ad")
    adata = adata[adata.X.sum(1) > 0].copy()
    SCGACL.setup_anndata(adata)
    with caplog.at_level(logging.INFO, logger="scgacl_scvi"):
        model = SCGACL(adata, n_hidden=8, n_hidden_discriminator=8)
    choice = model.likelihood_choice_
    assert choice["gene_likelihood"] == CHOICES[name] == model.module.gene_likelihood
    share = f"{choice['excess_zero_share']:.1%} of all zeros are in excess"
    assert share in caplog.text
    assert share in model._model_summary_string
    # No close call.
    assert choice["excess_zero_share"] > 0.3 if CHOICES[name] == "zinb" else choice["excess_zero_share"] < 0.05
