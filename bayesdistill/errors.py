"""Exceptions and warnings of the package.

Every module may import this one; it imports no other module of the package.
"""

from __future__ import annotations


class BayesdistillError(Exception):
    """Base class of all errors of the package; the command line exits with code 2.

    Parameters
    ----------
    message : str
        What is wrong, and how to fix it.
    in_python : str
        Advice on Python's functions, which the command line omits.
    """

    def __init__(self, message: str = "", *, in_python: str = "") -> None:
        super().__init__(f"{message} {in_python}".rstrip())
        self.message = message


class DataError(BayesdistillError, ValueError):
    """Invalid table of runs; the message names the file, column and row."""


class ParameterError(BayesdistillError, ValueError):
    """Invalid argument; the message names the argument and the expected values."""


class ModelError(BayesdistillError, ValueError):
    """The model cannot be built or sampled, or the fit is invalid."""


class FileError(BayesdistillError, OSError):
    """A file is missing, damaged, or was not written by this package."""


class ConvergenceError(BayesdistillError, RuntimeError):
    """The posterior did not converge; use it with `allow_unconverged=True`."""


class ConflictError(BayesdistillError, ValueError):
    """The runs contradict the supervised law, as runs of another corpus do; decide anyway with `allow_conflict=True`."""


class CompilerWarning(UserWarning):
    """The model is compiled with numba, which takes longer; the posterior is the same."""


class ConvergenceWarning(UserWarning):
    """The posterior failed a convergence check."""


class ConflictWarning(UserWarning):
    """The runs contradict the supervised law, as runs of another corpus do."""


class ExtrapolationWarning(UserWarning):
    """A result is outside the range of the fitted runs."""


class DesignWarning(UserWarning):
    """An axis of the runs does not vary, so the fit cannot answer some questions; `check` names them."""


class DigestWarning(UserWarning):
    """A file of an earlier version carries no digest, so damage can remain unnoticed."""
