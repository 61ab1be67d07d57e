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


class RankError(LabkitError, RuntimeError):
    """A rank of a process group raised, was killed, or did not answer in time.

    Attributes:
        reasons: what happened, by rank, the first to fail first.
        details: the traceback of the first that raised.
    """

    def __init__(
        self, message: str, reasons: dict[int, str] | None = None, details: str = ""
    ) -> None:
        super().__init__(message)
        self.reasons = reasons or {}
        self.details = details


class MissingPackageError(LabkitError, ImportError):
    """A technique needs a package that is not installed."""


class DoesNotApplyError(LabkitError, ValueError):
    """A technique has nothing to work on in this model, or this machine cannot run it."""
