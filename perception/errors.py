"""Errors that a user can mend: shown as one line, never as a traceback."""


class PerceptionError(Exception):
    """What is wrong, where, what was expected, and what to do next, in one line."""


class ConfigError(PerceptionError):
    """A configuration that cannot be run."""


class DriveError(PerceptionError):
    """A recording that cannot be opened, or that holds nothing to replay."""


class ModelError(PerceptionError):
    """A detector that cannot be loaded or whose outputs are not understood."""


class BackendError(PerceptionError):
    """A device or runtime that was asked for and is not there."""


class GpuError(PerceptionError):
    """A call of the GPU's driver that failed, by its name."""


class OutputError(PerceptionError):
    """A place that results cannot be written to."""


class ResultsError(PerceptionError):
    """Results of a run that cannot be read back."""


class MeasurementError(PerceptionError):
    """A measurement that cannot be: not finite, of the wrong shape, or of no known class."""
