"""Do parameters, objects and models belong together? Asked by the pipeline and by the doctor."""

from __future__ import annotations

from collections.abc import Sequence

from heatnet_ros.config import PipelineConfig
from heatnet_ros.errors import ConfigError, ModelError
from heatnet_ros.manifest import Manifest, check_objects
from heatnet_ros.objects import ObjectLibrary


def check_consistency(
    config: PipelineConfig, library: ObjectLibrary, detector: Manifest, estimator: Manifest
) -> None:
    """Raise ModelError or ConfigError with what does not fit, where, and the remedy.

    Both models are of objects of the library, with its keypoints; the estimator knows all that the
    detector finds; ``config.objects`` are in the library and among what the detector finds.
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
    check_wanted(config.objects, library, detector)


def check_wanted(names: Sequence[str], library: ObjectLibrary, detector: Manifest) -> None:
    """Raise ConfigError for an object to look for that nobody knows, or that is never found."""
    library.check_names(names)
    never = [name for name in names if name not in detector.objects]
    if never:
        raise ConfigError(
            f"objects: the detector '{detector.name}' does not know {', '.join(never)}; it finds "
            f"{', '.join(detector.objects)}. Train one that does (python -m heatnet_ros onboard), "
            "or leave it out."
        )
