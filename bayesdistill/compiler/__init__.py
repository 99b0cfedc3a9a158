"""Compile PyMC models for nutpie with LLVM, in seconds instead of a minute.

`compile` takes a function that builds a PyMC model and a cache key, and returns the object that `nutpie.sample` takes. Every model is
compared with PyTensor's log density and gradient before it is used. A model that is not supported is compiled with PyTensor and numba
instead, after a `CompilerWarning`. The compiler does not depend on the models that this package fits.
"""

from bayesdistill.compiler._compile import compile  # noqa: A004

__all__ = ["compile"]
