import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from scgacl_scvi.evaluate import _matrix, clustering_agreement, within_type_variance_ratio


def types(seed=0, spread=6.0, n=90, g=30):
    rng = np.random.default_rng(seed)
    labels = np.repeat(["B", "NK", "T"], n // 3)
    centres = dict(zip(["B", "NK", "T"], rng.normal(0, spread, (3, g)), strict=True))
    return np.array([centres[label] for label in labels]) + rng.normal(size=(n, g)), labels


def test_types_that_stand_apart_are_found():
    x, labels = types()
    for matrix in (x, x.astype(np.float32), sparse.csr_matrix(x), pd.DataFrame(x)):
        result = clustering_agreement(matrix, pd.Categorical(labels), seed=1)
        assert (result.ari, result.nmi) == (1.0, pytest.approx(1.0))


def test_labels_that_mean_nothing_agree_by_chance_only():
    x, labels = types()
    shuffled = np.random.default_rng(3).permutation(labels)
    assert abs(clustering_agreement(x, shuffled, seed=0).ari) < 0.1


def test_it_agrees_with_k_means_on_an_exact_svd():
    x, labels = types(seed=4, spread=0.4)
    centred = x - x.mean(0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    clusters = KMeans(3, n_init=10, random_state=0).fit_predict(u[:, :29] * s[:29])
    result = clustering_agreement(x, labels, seed=0)
    assert 0.2 < result.ari < 1
    assert result.ari == pytest.approx(adjusted_rand_score(labels, clusters), abs=0.05)
    assert result.nmi == pytest.approx(normalized_mutual_info_score(labels, clusters), abs=0.05)


def test_the_same_seed_gives_the_same_clusters():
    x, labels = types(seed=5, spread=0.3)
    assert clustering_agreement(x, labels, seed=7) == clustering_agreement(x, labels, seed=7)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_a_method_that_returns_one_profile_finds_nothing(container):
    _, labels = types()
    assert clustering_agreement(container(np.ones((90, 30))), labels, seed=0).ari == 0


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_one_gene_is_enough(container):
    x = container(np.array([[0.0], [0.0], [9.0], [9.1]]))
    assert clustering_agreement(x, [0, 0, 1, 1], seed=0).ari == 1


def test_one_label_cannot_be_found():
    with pytest.raises(ValueError, match="labels: all cells are 'B'; pass at least two"):
        clustering_agreement(np.ones((3, 2)), ["B"] * 3, seed=0)


def test_shrinking_towards_the_type_mean_by_half_keeps_a_quarter():
    x, labels = types()
    means = pd.DataFrame(x).groupby(labels).transform("mean").to_numpy()
    assert within_type_variance_ratio((x + means) / 2, x, labels) == pytest.approx(0.25)
    assert within_type_variance_ratio(means, x, labels) == pytest.approx(0, abs=1e-12)
    assert within_type_variance_ratio(x, x, labels) == pytest.approx(1)


def test_the_ratio_agrees_with_pandas(monkeypatch):
    monkeypatch.setattr(_matrix, "BLOCK_ENTRIES", 7 * 30)  # several blocks
    (x, labels), (y, _) = types(1), types(2)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y, labels = x[order], y[order], labels[order]
    variance = [
        sum(group.var(ddof=0) * len(group) for _, group in pd.DataFrame(m).groupby(labels)) / len(labels)
        for m in (x, y)
    ]
    expected = (variance[0] / variance[1]).mean()
    assert within_type_variance_ratio(x, y, labels) == pytest.approx(expected)
    assert within_type_variance_ratio(sparse.csr_matrix(x), sparse.csc_array(y), labels) == pytest.approx(expected)


def test_genes_that_do_not_vary_inside_the_reference_are_left_out():
    x, labels = types()
    constant = np.full((90, 1), 0.1)
    ratio = within_type_variance_ratio(np.hstack([x, x[:, :1]]), np.hstack([x, constant]), labels)
    assert ratio == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["B", "B"], "labels: expected one label for each of 3 cells"),
        (["B", None, "T"], "labels: some cells have no label"),
        ([1.0, np.nan, 2.0], "labels: some cells have no label"),
        (["B", "T", "NK"], "reference: no gene varies inside any label"),
    ],
)
def test_bad_labels_are_named_with_a_remedy(labels, message):
    with pytest.raises(ValueError, match=message):
        within_type_variance_ratio(np.eye(3), np.eye(3), labels)
