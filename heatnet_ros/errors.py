"""Exceptions of the package.

A message says what is wrong, what was expected, what was got, where, and what to do about it.
A hard scene is no error: the object is then in ``PipelineResult.rejected`` with a reason.
"""


class HeatnetError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(HeatnetError):
    """A configuration or object file is wrong: unknown key, value out of range, missing file."""


class DataError(HeatnetError):
    """Input data is wrong: image, depth, calibration, mesh or data set."""


class ModelError(HeatnetError):
    """A model file does not fit its manifest or the objects it is asked to find."""


class EngineError(HeatnetError):
    """An inference backend is missing or cannot give the requested device or precision."""
