"""The package's own errors. Every one names the problem and the way out.

Every module may import this one; it imports nothing.
"""

from __future__ import annotations


class BayesdistillError(Exception):
    """Anything that went wrong in a way the package foresaw. The command line turns it into exit code 2."""


class DataError(BayesdistillError, ValueError):
    """A table of runs is not usable; the message names file, column and row."""


class ParameterError(BayesdistillError, ValueError):
    """An argument is outside what its function accepts; the message names it and its range."""


class ModelError(BayesdistillError, ValueError):
    """The model cannot be built or sampled as asked."""


class FileError(BayesdistillError, OSError):
    """A file is missing, damaged, or was not written by this package."""


class ConvergenceError(BayesdistillError, RuntimeError):
    """A posterior that did not converge was about to be used; `allow_unconverged=True` uses it and says so."""


class CompilerWarning(UserWarning):
    """A model is compiled with numba instead of LLVM, which takes longer; the posterior is the same."""


class ConvergenceWarning(UserWarning):
    """The posterior in use did not pass `check`."""


class ExtrapolationWarning(UserWarning):
    """An answer lies outside the runs that the posterior has seen."""
