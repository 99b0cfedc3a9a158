"""Compile LLVM assembly to machine code, and load it."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from bayesdistill.compiler.llvm_text import LANES, MATHEMATICS, VECTORS


class Code:
    """Loaded functions; their addresses are valid as long as this object exists."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def address(self, name: str) -> int:
        """Return the address of a function."""
        return int(self._engine.get_function_address(name))


@functools.cache
def _target() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, address in (_addresses() | _vector_addresses()).items():
        llvm.add_symbol(f"bayesdistill_{name}", address)
    return llvm.Target.from_triple(llvm.get_process_triple())


@functools.cache
def _vector_addresses() -> dict[str, int]:
    """Return the addresses of glibc's vector functions (libmvec) that this processor supports: AVX2, AVX-512."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    try:
        library = ctypes.CDLL("libmvec.so.1")
    except OSError:
        return {}
    found = {}
    for lanes, kind, feature in zip(LANES, "de", ("avx2", "avx512f"), strict=True):
        symbols = {name: f"_ZGV{kind}N{lanes}{'vv' if name == 'pow' else 'v'}_{name}" for name in VECTORS}
        if features.get(feature) and all(hasattr(library, symbol) for symbol in symbols.values()):
            for name, symbol in symbols.items():
                found[f"{name}_{lanes}"] = ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value or 0
    return found


def lanes() -> list[int]:
    """Return the vector widths for which this processor and C library have functions: often 4, or 4 and 8."""
    return [count for count in LANES if f"exp_{count}" in _vector_addresses()]


def _addresses() -> dict[str, int]:
    """Return the addresses of the mathematical functions of the C library and of two of SciPy's."""
    from scipy.special import cython_special

    try:
        library = ctypes.CDLL("libm.so.6")
    except OSError:  # on systems other than Linux, Python has loaded it
        library = ctypes.CDLL(None)
    capsule = ctypes.pythonapi.PyCapsule_GetPointer
    name_of = ctypes.pythonapi.PyCapsule_GetName
    found = {}
    for name in MATHEMATICS:
        if name in ("gammaln", "psi"):
            offered: dict[str, Any] = dict(cython_special.__pyx_capi__)
            inside = offered["__pyx_fuse_1psi" if name == "psi" else name]
            name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
            capsule.restype, capsule.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            found[name] = capsule(inside, name_of(inside))
        else:
            found[name] = ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    return found


def _machine() -> Any:
    """Return LLVM's description of this processor."""
    import llvmlite.binding as llvm

    return _target().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        jit=True,
        codemodel="jitdefault",
    )


def processor() -> list[str]:
    """Return what machine code depends on: system, processor, its features and the vector widths."""
    import llvmlite.binding as llvm

    return [
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        *(str(count) for count in lanes()),
    ]


def optimized(text: str) -> tuple[Any, Any]:
    """Return the optimized module of an assembly text, and the target machine."""
    import llvmlite.binding as llvm

    machine = _machine()
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


def load_code(code: bytes) -> Code:
    """Load an object file that `compile_text` made for this processor."""
    import llvmlite.binding as llvm

    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return Code(engine)
