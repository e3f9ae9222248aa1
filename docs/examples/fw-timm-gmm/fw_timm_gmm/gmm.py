"""Components of a Gaussian mixture as labels (scikit-learn's EM), fitted to features."""

from typing import ClassVar, Literal

import torch
from pydantic import Field

from fw.core.errors import FwError
from fw.core.job import Job
from fw.core.kinds import Annotator
from fw.core.randomness import seed_from
from fw.core.types import Annotation, ConditionSpec, Observations


class GMM(Annotator):
    """The likeliest component of a Gaussian mixture for each image, on standardised features."""

    name: ClassVar[str] = "gmm"

    clusters: int = Field(10, ge=2, description="number of components")
    covariance: Literal["full", "tied", "diag", "spherical"] = Field(
        "diag", description="shape of each component"
    )
    n_init: int = Field(3, ge=1, description="restarts; the likeliest fit is kept")

    def annotate(self, data: Observations, job: Job) -> Annotation:
        from sklearn.mixture import GaussianMixture
        from sklearn.preprocessing import StandardScaler

        if (
            data.features is None
            or data.count < self.clusters
            or not data.features.isfinite().all()
        ):
            raise FwError(
                f"annotator gmm: {self.clusters} components need as many images, with finite "
                "features"
            )
        points = StandardScaler().fit_transform(data.features.double().numpy())  # (N, D)
        seed = seed_from(job.seed, "gmm") % 2**32
        fit = GaussianMixture(
            self.clusters, covariance_type=self.covariance, n_init=self.n_init, random_state=seed
        )
        return Annotation(
            ConditionSpec("class", self.clusters), torch.from_numpy(fit.fit_predict(points)).long()
        )
