"""The errors that labkit raises, each a sentence with the way out."""


class LabkitError(Exception):
    """What every error of labkit inherits from."""


class AgreementError(LabkitError, ValueError):
    """Two variants do not compute the same thing, so their speed must not be compared."""


class ResolutionError(LabkitError, ValueError):
    """The resolution asked for is far beyond what this machine can give in this budget."""


class UnpicklableError(LabkitError, TypeError):
    """A variant cannot be sent to the worker."""


class WorkerError(LabkitError, RuntimeError):
    """The worker could not be started, or died before it measured anything."""


class MissingPackageError(LabkitError, ImportError):
    """A technique needs a package that is not installed."""


class DoesNotApplyError(LabkitError, ValueError):
    """A technique has nothing to work on in this model, or this machine cannot run it."""
