"""Compile a model with LLVM or numba, or load it from the cache."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bayesdistill.compiler.cache import cache_folder, file_key, read_program, write_program
from bayesdistill.compiler.ir import UnsupportedGraphError
from bayesdistill.compiler.program import load_program
from bayesdistill.compiler.translation import compile_program, translate
from bayesdistill.compiler.verification import DisagreementError, verify
from bayesdistill.errors import CompilerWarning, ParameterError

if TYPE_CHECKING:
    import pymc as pm

VARIABLE = "BAYESDISTILL_COMPILER"
"""Environment variable: "llvm" (default) or "numba"."""


def compile(build: Callable[[], pm.Model], key: str | None) -> Any:  # noqa: A001
    """Compile a PyMC model for nutpie, or load it from the cache.

    Parameters
    ----------
    build : callable
        Builds the model. It is not called if the model is in the cache.
    key : str or None
        Identifies the model: equal keys mean equal models. Versions, processor and settings need not be part of it. None turns
        off the cache.

    Returns
    -------
    nutpie's compiled model
        Its attribute `backend` is "llvm" or "numba".

    Raises
    ------
    ParameterError
        If the environment variable `BAYESDISTILL_COMPILER` is neither "llvm" nor "numba".

    Warns
    -----
    CompilerWarning
        If the model is compiled with numba because LLVM cannot be used.
    """
    asked = os.environ.get(VARIABLE) or "llvm"
    if asked not in ("llvm", "numba"):
        raise ParameterError(f"The environment variable {VARIABLE} must be 'llvm' or 'numba', got {asked!r}.")
    if asked == "numba":
        return compile_with_numba(build())
    folder = None if key is None else cache_folder()
    name = "" if folder is None else file_key(str(key))
    program = None if folder is None else read_program(folder, name)
    if program is not None:
        return load_program(program)
    model = build()
    try:
        functions = translate(model)
        program = compile_program(model, functions)
        compiled = load_program(program)
        difference = verify(compiled, functions)
    except (UnsupportedGraphError, DisagreementError) as error:
        reason = f"does not support {error}" if isinstance(error, UnsupportedGraphError) else str(error)
        warnings.warn(
            f"The LLVM compiler {reason}. The model is compiled with numba instead, which takes about a minute, and sampling "
            f"takes longer. The posterior is the same. Set {VARIABLE}=numba to turn off this warning.",
            CompilerWarning,
            stacklevel=3,
        )
        return compile_with_numba(model)
    if folder is not None:
        write_program(folder, name, program, difference)
    return compiled


def compile_with_numba(model: pm.Model) -> Any:
    """Compile a model with PyTensor and numba, which support every operation.

    PyTensor's default of fast math is turned off: with it, the last digit of a sum depends on how much of the model numba finds in
    its cache, so the same seed would not always give the same draws. It would also remove checks for non-finite numbers, on which
    NUTS relies.
    """
    import nutpie
    import pytensor

    with pytensor.config.change_flags(numba__fastmath=False):
        compiled = nutpie.compile_pymc_model(model)

    class NumbaModel(type(compiled)):  # type: ignore[misc]
        backend = "numba"

    return NumbaModel(**vars(compiled))
