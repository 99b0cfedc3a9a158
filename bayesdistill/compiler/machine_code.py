"""Compile LLVM assembly to machine code, and load it."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from bayesdistill.compiler.llvm_text import LANES, MATHEMATICS, VECTORS


@functools.cache
def _llvm() -> Any:
    """Return LLVM, ready for this processor; importing it takes 0.1 s."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def _vector_functions() -> dict[str, int]:
    """Return the addresses of glibc's vector functions (libmvec) that this processor supports: AVX2, AVX-512."""
    features = _llvm().get_host_cpu_features()
    try:
        library = ctypes.CDLL("libmvec.so.1")
    except OSError:
        return {}
    found: dict[str, int] = {}
    for lanes, kind, feature in zip(LANES, "de", ("avx2", "avx512f"), strict=True):
        symbols = {name: f"_ZGV{kind}N{lanes}{'vv' if name == 'pow' else 'v'}_{name}" for name in VECTORS}
        if features.get(feature) and all(hasattr(library, symbol) for symbol in symbols.values()):
            found |= {f"{name}_{lanes}": _address(library, symbol) for name, symbol in symbols.items()}
    return found


def lanes() -> list[int]:
    """Return the vector widths for which this processor and C library have functions: often 4, or 4 and 8."""
    return [count for count in LANES if f"exp_{count}" in _vector_functions()]


def _functions() -> dict[str, int]:
    """Return the addresses of the mathematical functions of the C library and of two of SciPy's."""
    from scipy.special import cython_special

    try:
        library = ctypes.CDLL("libm.so.6")
    except OSError:  # on systems other than Linux, Python has loaded it
        library = ctypes.CDLL(None)
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    capsules = {"gammaln": "gammaln", "psi": "__pyx_fuse_1psi"}
    found = {name: _address(library, name) for name in MATHEMATICS if name not in capsules}
    for name, symbol in capsules.items():
        capsule = dict(cython_special.__pyx_capi__)[symbol]
        found[name] = pointer_of(capsule, name_of(capsule))
    return found


def _address(library: ctypes.CDLL, symbol: str) -> int:
    return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0


def processor() -> list[str]:
    """Return what machine code depends on: system, processor, its features and the vector widths."""
    llvm = _llvm()
    features = llvm.get_host_cpu_features().flatten()
    return [llvm.get_process_triple(), llvm.get_host_cpu_name(), features, *(str(count) for count in lanes())]


def _machine() -> Any:
    """Return LLVM's description of this processor."""
    triple, cpu, features, *_ = processor()
    target = _llvm().Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=2, jit=True, codemodel="jitdefault")


def optimized(text: str) -> tuple[Any, Any]:
    """Return the optimized module of an assembly text, and the target machine."""
    llvm, machine = _llvm(), _machine()
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_process_triple()
    module.data_layout = str(machine.target_data)
    module.verify()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    return module, machine


def compile_text(text: str) -> bytes:
    """Compile an assembly text for this processor into an object file."""
    module, machine = optimized(text)
    return bytes(machine.emit_object(module))


def load_code(code: bytes) -> Any:
    """Load an object file that `compile_text` made for this processor.

    Returns
    -------
    llvmlite's execution engine
        `get_function_address(name)` is the address of a function, valid as long as the engine exists.
    """
    llvm = _llvm()
    for name, address in (_functions() | _vector_functions()).items():
        llvm.add_symbol(f"bayesdistill_{name}", address)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return engine
