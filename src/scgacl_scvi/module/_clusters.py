"""Classes for cells without a label, as the published tool finds them: k-means on 50 principal components."""

import numpy as np
import torch
from torch import Tensor, nn

from scgacl_scvi._compat import torch_threads_kept

_N_PCS = 50


class KMeansClasses(nn.Module):
    """Nearest k-means centroid in the space of the training data's principal components.

    Kept as buffers, so that a batch's classes need no cell index and a saved model has them. Rows beyond what the data
    allowed (fewer cells or clusters than slots) are zero components and infinitely far centroids.
    """

    def __init__(self, n_input: int, n_clusters: int):
        super().__init__()
        n_pcs = min(_N_PCS, n_input)
        self.register_buffer("center", torch.zeros(n_input))
        self.register_buffer("components", torch.zeros(n_pcs, n_input))
        self.register_buffer("centroids", torch.full((n_clusters, n_pcs), torch.inf))

    def forward(self, profile: Tensor) -> Tensor:
        """Cluster code of each lognorm profile (cells x genes)."""
        scores = (profile - self.center) @ self.components.T
        return torch.cdist(scores, self.centroids.nan_to_num(posinf=1e18)).argmin(1)

    def fit(self, profiles, n_clusters: int, seed: int) -> "KMeansClasses":
        """Fit on lognorm profiles (cells x genes, sparse or dense)."""
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

        n_pcs = min(len(self.components), profiles.shape[0] - 1, profiles.shape[1] - 1)
        with torch_threads_kept():
            pca = PCA(n_pcs, svd_solver="arpack", random_state=seed).fit(profiles)
            scores = pca.transform(profiles)
            kmeans = KMeans(n_clusters, n_init=10, random_state=seed).fit(np.ascontiguousarray(scores))
        self.center.copy_(torch.as_tensor(pca.mean_))
        self.components[:n_pcs].copy_(torch.as_tensor(pca.components_.copy()))
        self.centroids[:n_clusters, :].fill_(0.0)
        self.centroids[:n_clusters, :n_pcs].copy_(torch.as_tensor(kmeans.cluster_centers_))
        return self


class ClassesMixin:
    """Classes of cells, for the type-level contrast and for the dropout rule."""

    @torch.no_grad()
    def classes(self, inferred: dict, tensors: dict[str, Tensor]) -> Tensor:
        """Class of each cell for the type-level contrast: its label, else its cluster; each stratum has its own."""
        return self._classes(self.kmeans, inferred, tensors)

    @torch.no_grad()
    def dropout_classes(self, inferred: dict, tensors: dict[str, Tensor]) -> Tensor:
        """Row of ``zero_dropout`` for each cell: the class within which the Gamma-Normal mixture was fitted."""
        return self._classes(self.kmeans_dropout, inferred, tensors)

    def _classes(self, kmeans: KMeansClasses | None, inferred: dict, tensors: dict[str, Tensor]) -> Tensor:
        labels, strata = self.labels(tensors), self.strata(tensors)
        if kmeans is None:
            cluster = self.prior.responsibilities(inferred["qz"].loc, strata=strata).argmax(-1)
        else:  # these clusters are not tied to labels: number them apart
            cluster = self.n_labels + kmeans(inferred["profile"])
        if labels is None:
            return cluster
        return torch.where(labels < self.n_labels, self.prior.component_of(labels, strata), cluster)

    def fit_classes(self, profiles, n_clusters: int, seed: int) -> None:
        """Fit the published classes on lognorm profiles (cells x genes, sparse or dense)."""
        self.kmeans.fit(profiles, n_clusters, seed)
        self.kmeans_dropout.fit(profiles, n_clusters, seed + 1)
