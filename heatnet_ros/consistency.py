"""Do parameters, objects and models belong together? Asked by the pipeline and by the doctor."""

from __future__ import annotations

from heatnet_ros.config import PipelineConfig
from heatnet_ros.errors import ModelError
from heatnet_ros.manifest import Manifest, check_objects
from heatnet_ros.objects import ObjectLibrary


def check_consistency(
    config: PipelineConfig, library: ObjectLibrary, detector: Manifest, estimator: Manifest
) -> None:
    """Raise ModelError or ConfigError with what does not fit, where, and the remedy.

    Both models are of objects of the library, with its keypoints; the estimator knows all that the
    detector finds; ``config.objects`` are in the library.
    """
    for manifest in (detector, estimator):
        check_objects(manifest, library)
    unknown = [name for name in detector.objects if name not in estimator.objects]
    if unknown:
        raise ModelError(
            f"Detector '{detector.name}' finds {', '.join(unknown)}, which estimator "
            f"'{estimator.name}' does not know. Set detector.model and estimator.model to "
            "models of the same object set."
        )
    library.check_names(config.objects)
