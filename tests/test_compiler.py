"""The compiler: its machine code compared with PyTensor's own evaluation, the fallback to numba and its warnings."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pymc as pm
import pytensor
import pytest

import bayesdistill as bd
from bayesdistill import compiler
from bayesdistill.compiler import _compile, machine_code, translation
from bayesdistill.compiler._compile import compile_with_numba
from bayesdistill.compiler.ir import UnsupportedGraphError
from bayesdistill.compiler.machine_code import compile_text
from bayesdistill.compiler.program import Program, load_program
from bayesdistill.compiler.translation import compile_program, translate
from bayesdistill.compiler.verification import DisagreementError, verify
from bayesdistill.errors import CompilerWarning, ModelError, ParameterError
from bayesdistill.law import LAWS, Law, Prior
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors, with_priors

DEFAULT = LAWS["tied_reducible"]
THEORY = {"perfect_teacher_width": 0.005, "limited_data_width": 0.01}
CASES = {
    "default": {},
    "equation 8": {"law": LAWS["busbridge2025"]},
    "no asymptotic prior": {"asymptotic_width": None},
    "all statements of theory": THEORY,
    "all statements of theory, equation 8": {"law": LAWS["busbridge2025"]} | THEORY,
    "tokens worth the same": {"law": DEFAULT.without_terms("soft_targets")},
    "omega 0": {"law": DEFAULT.without_terms("reducible_ratio")},
    "omega free": {"law": DEFAULT.with_fixed(omega=None)},
    "exponents apart": {"law": DEFAULT.without_terms("tied_exponents")},
    "no weak teachers": {"law": DEFAULT.without_terms("weak_teachers")},
    "noise by r": {"law": DEFAULT.with_residual_noise("ratio")},
    "noise by tokens": {"law": DEFAULT.with_residual_noise("tokens")},
    "teacher effects": {"law": DEFAULT.with_effects("teacher")},
    "both effects": {"law": DEFAULT.with_effects("teacher", "student")},
    "all effects": {"law": DEFAULT.with_effects("teacher", "student", "student_slope")},
    "discrepancy": {"law": DEFAULT.with_discrepancy("shared", "distilled")},
    "supervised, discrepancy": {"kind": "supervised", "law": DEFAULT.with_discrepancy("shared")},
    "joint, discrepancy": {"kind": "joint", "law": DEFAULT.with_discrepancy("shared", "distilled")},
    "no capacity gap": {"law": DEFAULT.without_terms("capacity_gap")},
    "fixed capacity gap": {"gap": False},
    "supervised alone": {"kind": "supervised"},
    "supervised, gamma 1": {"kind": "supervised", "law": DEFAULT.with_fixed(gamma=1.0)},
    "supervised, effects of models": {"kind": "supervised", "law": DEFAULT.with_effects("model")},
    "joint": {"kind": "joint"},
    "joint, equation 8": {"kind": "joint", "law": LAWS["busbridge2025"]},
    "joint, effects of models": {"kind": "joint", "law": DEFAULT.with_effects("student", "model")},
}


QUICK = ("both effects", "joint, equation 8")


@pytest.fixture(scope="module")
def plain(runs354) -> Compiled:
    """The default law of the published runs, compiled."""
    return Compiled(compile_with_llvm(model_of(runs354, None)))


def model_of(runs, supervised, kind="distilled", gap=True, law: Law = DEFAULT, **settings) -> pm.Model:
    runs = None if kind == "supervised" else runs
    supervised = None if kind == "distilled" else supervised
    reference = reference_run(runs, supervised)
    law = law.for_runs(distilled=runs is not None, supervised=supervised is not None)
    priors = default_priors(law, reference, **settings)
    if not gap:
        fixed = {"log_gap_strength": -30.0, "log_gap_power": np.log(6.0), "gap_curvature": 0.0}
        priors = with_priors(priors, {name: Prior(value, 0.0) for name, value in fixed.items()})
    return bd.build_model(runs, supervised, priors=priors, reference=reference)


def compile_with_llvm(model: pm.Model):
    return load_program(compile_program(model, translate(model)))


class Compiled:
    """Calls the compiled functions as the sampler does: addresses, no checks."""

    def __init__(self, compiled) -> None:
        self.compiled = compiled
        pointer, whole = ctypes.c_void_p, ctypes.c_uint64
        logp = ctypes.CFUNCTYPE(ctypes.c_int64, whole, pointer, pointer, pointer, pointer)
        expand = ctypes.CFUNCTYPE(ctypes.c_int64, whole, whole, pointer, pointer, pointer)
        self._logp = logp(compiled.compiled_logp_func.address)
        self._expand = expand(compiled.compiled_expand_func.address)

    def logp(self, x: np.ndarray) -> tuple[int, float, np.ndarray]:
        slope, value, n = np.full(x.size, 7.0), np.full(1, 7.0), self.compiled.n_dim
        data = self.compiled.user_data.ctypes.data
        code = self._logp(n, x.ctypes.data, slope.ctypes.data, value.ctypes.data, data)
        return code, float(value[0]), slope

    def draw(self, x: np.ndarray) -> dict[str, np.ndarray]:
        n, out = self.compiled.n_dim, np.full(self.compiled.n_expanded, 7.0)
        data = self.compiled.user_data.ctypes.data
        assert self._expand(n, out.size, x.ctypes.data, out.ctypes.data, data) == 0
        names, _, shapes = self.compiled.shape_info
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        pieces = np.split(out, ends[:-1])
        return {n: piece.reshape(shape) for n, piece, shape in zip(names, pieces, shapes, strict=True)}


class Reference:
    """PyTensor evaluates the same graphs node by node, in Python, as they come from the model."""

    def __init__(self, model: pm.Model) -> None:
        self.values = [model.rvs_to_values[variable] for variable in model.free_RVs]
        free = {value.name for value in self.values}
        self.names = [v.name for v in model.unobserved_value_vars if v.name not in free]
        others = [v for v in model.unobserved_value_vars if v.name not in free]
        density = model.logp()
        slopes = pytensor.grad(density, self.values)
        mode = pytensor.compile.mode.Mode(linker="py", optimizer=None)
        with pytensor.config.change_flags(cxx=""):
            self.function = pytensor.function(
                self.values, [density, *slopes, *others], mode=mode, on_unused_input="ignore"
            )

    def __call__(self, x: np.ndarray, shapes) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        parts = [p.reshape(s) for p, s in zip(np.split(x, ends[:-1]), shapes, strict=True)]
        density, *rest = self.function(*parts)
        slopes, others = rest[: len(parts)], rest[len(parts) :]
        slope = np.concatenate([np.ravel(s) for s in slopes])
        return float(density), slope, dict(zip(self.names, others, strict=True))


def compare(native: Compiled, reference: Reference, points) -> None:
    count = len(reference.values)
    for x in points:
        code, density, slope = native.logp(x)
        expected, expected_slope, others = reference(x, native.compiled.shape_info[2][:count])
        assert code == 0
        assert density == pytest.approx(expected, rel=1e-10)
        # Far from the posterior single slopes are small differences of large numbers: the whole gradient is the scale.
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-9, atol=1e-10 * np.linalg.norm(expected_slope))
        drawn = native.draw(x)
        np.testing.assert_array_equal(np.concatenate([drawn[value.name].ravel() for value in reference.values]), x)
        assert list(drawn) == [value.name for value in reference.values] + reference.names
        for name, value in others.items():
            # Shifts are differences of losses of two nats, which have 16 digits: one near zero has their rounding.
            atol = 1e-13 + 1e-12 * np.abs(value).max()
            np.testing.assert_allclose(drawn[name], value, rtol=1e-10, atol=atol, err_msg=name)


def points(n_dim: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [scale * rng.standard_normal(n_dim) for scale in (0.0, 0.1, 0.1, 0.5, 1.0)]


@pytest.mark.slow
def test_several_numbers_at_once_are_as_good_as_one_by_one(runs354, supervised_runs, monkeypatch):
    model = model_of(runs354, supervised_runs, **CASES["both effects"])
    several = Compiled(compile_with_llvm(model))
    monkeypatch.setattr(translation, "lanes", lambda: [])
    assert "vector-function-abi-variant" not in translate(model).text
    single = Compiled(compile_with_llvm(model))
    for x in points(several.compiled.n_dim):
        (_, density, slope), (_, expected, expected_slope) = several.logp(x), single.logp(x)
        assert density == pytest.approx(expected, rel=1e-11)
        np.testing.assert_allclose(slope, expected_slope, rtol=1e-9, atol=1e-11 * np.linalg.norm(expected_slope))


@pytest.mark.skipif(
    not machine_code.lanes(), reason="this processor or C library has no functions for several numbers at once"
)
def test_loops_over_runs_take_several_numbers_at_once(runs354, supervised_runs):

    text = str(machine_code.optimized(translate(model_of(runs354, supervised_runs, **CASES["equation 8"])).text)[0])
    calls = re.findall(r"call <(\d) x double> @bayesdistill_(\w+)_\d\(", text)
    assert {name for _, name in calls} >= {"exp", "log", "log1p"}
    assert {int(lanes) for lanes, _ in calls} <= set(machine_code.lanes())


@pytest.mark.parametrize("case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_density_gradient_and_draws_are_those_of_the_model(runs354, supervised_runs, case):
    model = model_of(runs354, supervised_runs, **CASES[case])
    native = Compiled(compile_with_llvm(model))
    compare(native, Reference(model), points(native.compiled.n_dim))


@pytest.mark.slow
def test_new_data_of_another_length(runs354, supervised_runs):
    """One compiled model of all runs serves any part of them, as long as it is told."""
    model = model_of(runs354, supervised_runs, law=DEFAULT.with_effects("teacher").with_residual_noise("tokens"))
    kept = np.arange(len(runs354)) % 3 == 0
    compiled = compile_with_llvm(model)
    x = points(compiled.n_dim, 3)
    before = [Compiled(compiled).logp(point) for point in x]
    names = [v.name for v in compiled.shared_var_keys]
    assert set(names) >= {"teacher_loss", "student_loss_observed", "configuration_of_run", "teacher_of_run"}
    fewer = {name: model[name].get_value()[kept] for name in names}
    changed = compiled.with_data(**fewer)
    with model:
        rest = {name: model[name].get_value()[kept] for name in ("student_params", "student_tokens")}
        pm.set_data(fewer | rest, coords={"run": np.arange(kept.sum())})
    compare(Compiled(changed), Reference(model), x)
    # The first one still has its own data.
    for one, other in zip(before, (Compiled(compiled).logp(point) for point in x), strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_array_equal(one[2], other[2])


def test_machine_code_is_not_given_data_that_it_would_read_beyond(plain):
    compiled = plain.compiled
    with pytest.raises(ModelError, match="do not have the same length: 35"):
        compiled.with_data(teacher_loss=np.full(353, 2.0))
    for wrong in (-1, 1000):
        with pytest.raises(ModelError, match="an index of the data is outside 0 to"):
            compiled.with_data(configuration_of_run=np.full(354, wrong))


def test_points_without_a_density_are_reported(plain):
    for x in (np.full(plain.compiled.n_dim, np.nan), np.full(plain.compiled.n_dim, 1e4)):
        assert plain.logp(x)[0] in (3, 4)  # nutpie: the gradient, or the density, is not finite
    assert plain._logp(3, 0, 0, 0, 0) == -1  # a point of another length


def gamma_model() -> pm.Model:
    with pm.Model() as model:
        scale = pm.Gamma("scale", 2.0, 1.0)
        pm.Normal("y", 0.0, scale, observed=[0.3, -0.2, 0.5])
    return model


def sorting_model() -> pm.Model:
    with pm.Model(coords={"coordinate": range(3)}) as model:
        z = pm.Normal("z", 0.0, 1.0, dims="coordinate")
        pm.Normal("y", pm.math.sum(pm.math.cumsum(z)), 1.0, observed=0.3)
    return model


# Fallback, verification and warnings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (gamma_model, "the free variable scale, which is not normally distributed"),
        (sorting_model, "the operation CumOp"),
    ],
)
def test_unsupported_models_are_compiled_with_numba_after_a_warning(make, reason, monkeypatch):
    with pytest.raises(UnsupportedGraphError, match=reason):
        translate(make())
    monkeypatch.setattr(_compile, "compile_with_numba", lambda model: model)
    with pytest.warns(CompilerWarning, match=f"does not support {reason}.*about a minute.*posterior is the same"):
        model = compiler.compile(make, None)
    assert isinstance(model, pm.Model)


def test_an_unknown_version_of_nutpie_is_reported(plain, monkeypatch):
    import nutpie.compile_pymc

    monkeypatch.setattr(_compile, "compile_with_numba", lambda model: "numba")
    with monkeypatch.context() as changed:
        changed.delattr(nutpie.compile_pymc, "_prepare_dims_and_coords")
        with pytest.warns(CompilerWarning, match="does not support this version of nutpie"):
            assert compiler.compile(normal_model, None) == "numba"

    def other(**_):
        raise TypeError("unexpected keyword argument")

    monkeypatch.setattr("bayesdistill.compiler.program._llvm_model", lambda: other)
    with pytest.warns(CompilerWarning, match=r"does not support this version of nutpie \(unexpected"):
        assert compiler.compile(normal_model, None) == "numba"


@pytest.mark.slow
def test_numba_compiles_what_llvm_does_not_support():
    with pytest.warns(CompilerWarning):
        compiled = compiler.compile(sorting_model, None)
    assert compiled.backend == "numba"
    code, density, slope = Compiled(compiled).logp(np.array([0.1, -0.2, 0.3]))
    z = np.array([0.1, -0.2, 0.3])
    total = np.cumsum(z).sum()
    assert code == 0
    assert density == pytest.approx(-0.5 * (z @ z) - 0.5 * (0.3 - total) ** 2 - 2 * np.log(2 * np.pi))
    np.testing.assert_allclose(slope, -z + (0.3 - total) * np.array([3.0, 2.0, 1.0]))


def normal_model() -> pm.Model:
    with pm.Model() as model:
        weights = pm.Data("weights", np.array([1.0, 2.0, 3.0]))
        z = pm.Normal("z", 0.0, 1.0, shape=3)
        pm.Deterministic("mean", pm.math.sum(weights * z))
        pm.Normal("y", model["mean"], 1.0, observed=0.3)
    return model


def wrong_program(model: pm.Model, functions: translation.Functions, error: float = 1e-6) -> Program:
    """A program with an error in one number of its data."""
    program = compile_program(model, functions)
    arrays = [
        array + np.array([0.0, 0.0, error]) if name == "weights" else array
        for array, name in zip(program.arrays, program.shared, strict=True)
    ]
    assert "weights" in program.shared
    return replace(program, arrays=arrays)


def test_verification_finds_a_difference():
    model = normal_model()
    functions = translate(model)
    assert verify(load_program(compile_program(model, functions)), functions) < 1e-14
    with pytest.raises(DisagreementError, match=r"differ from PyTensor's by \d\.\de-0\d \(relative\)"):
        verify(load_program(wrong_program(model, functions)), functions)
    # With NaN, the compiled function reports failure where PyTensor finds a density.
    with pytest.raises(DisagreementError, match="differ from PyTensor's by nan"):
        verify(load_program(wrong_program(model, functions, float("nan"))), functions)


def test_numbers_whose_squares_overflow_can_be_verified():
    with pm.Model() as model:
        z = pm.Normal("z", 0.0, 1.0, shape=2)
        pm.Deterministic("coefficient", pm.math.exp(z + 600.0))
    functions = translate(model)
    assert verify(load_program(compile_program(model, functions)), functions) < 1e-12


@pytest.mark.slow
def test_the_default_model_passes_verification(runs354):
    model = model_of(runs354, None)
    functions = translate(model)
    assert 0 < verify(load_program(compile_program(model, functions)), functions) < 1e-10


def test_a_density_that_is_never_finite_cannot_be_verified():
    def nowhere() -> pm.Model:
        with pm.Model() as model:
            z = pm.Normal("z", 0.0, 1.0)
            pm.Potential("nowhere", pm.math.log(-pm.math.exp(z)))
        return model

    functions = translate(nowhere())
    with pytest.raises(DisagreementError, match="could not be checked"):
        verify(load_program(compile_program(nowhere(), functions)), functions)


@pytest.mark.slow
def test_a_wrong_program_is_neither_used_nor_stored(monkeypatch, tmp_path):
    monkeypatch.setenv("BAYESDISTILL_CACHE", str(tmp_path))
    monkeypatch.setattr(_compile, "compile_program", wrong_program)
    with pytest.warns(CompilerWarning, match="gives results that differ from PyTensor's"):
        compiled = compiler.compile(normal_model, "key")
    assert compiled.backend == "numba"
    assert list(tmp_path.iterdir()) == []
    import nutpie

    trace = nutpie.sample(compiled, draws=1000, tune=500, chains=2, seed=1, progress_bar=False)
    # The posterior of z is normal with mean 0.3 w / (1 + w'w), w = (1, 2, 3).
    expected = 0.3 * np.array([1.0, 2.0, 3.0]) / 15
    np.testing.assert_allclose(trace["posterior"]["z"].mean(("chain", "draw")), expected, atol=0.1)
    np.testing.assert_allclose(trace["posterior"]["mean"].std(), np.sqrt(14 / 15), atol=0.1)


def test_the_compiler_can_be_chosen(monkeypatch):
    monkeypatch.setattr(_compile, "compile_with_numba", lambda model: "numba")
    monkeypatch.setenv("BAYESDISTILL_COMPILER", "numba")
    assert compiler.compile(normal_model, None) == "numba"
    for name in ("llvm", ""):
        monkeypatch.setenv("BAYESDISTILL_COMPILER", name)
        assert compiler.compile(normal_model, None).backend == "llvm"
    monkeypatch.setenv("BAYESDISTILL_COMPILER", "gcc")
    with pytest.raises(ParameterError, match="BAYESDISTILL_COMPILER must be 'llvm' or 'numba', got 'gcc'"):
        compiler.compile(normal_model, None)


@pytest.mark.slow
def test_provenance_records_the_compiler(runs354, monkeypatch):
    options = {"draws": 50, "tune": 100, "chains": 2, "progress": False}
    for name in ("llvm", "numba"):
        monkeypatch.setenv("BAYESDISTILL_COMPILER", name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bd.ConvergenceWarning)
            assert bd.provenance(bd.fit(runs354, **options))["backend"] == name


def test_new_data_keep_the_compiler(plain):
    compiled = plain.compiled
    assert compiled.backend == "llvm"
    assert compiled.with_data(teacher_loss=np.full(354, 2.0)).backend == "llvm"


# Both compilers, and every process ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_both_compilers_describe_the_model_alike(runs354, supervised_runs):
    model = model_of(runs354, supervised_runs, law=DEFAULT.with_effects("teacher"))
    ours, theirs = compile_with_llvm(model), compile_with_numba(model)
    assert ours.n_dim == theirs.n_dim
    assert ours.n_expanded == theirs.n_expanded
    assert ours.shape_info[0] == theirs.shape_info[0]
    assert [tuple(map(int, s)) for s in theirs.shape_info[2]] == ours.shape_info[2]
    assert ours.dims == theirs.dims
    assert ours.reparameterized_names == theirs.reparameterized_names == []
    assert {k: v.tolist() for k, v in ours.coords.items()} == {k: v.tolist() for k, v in theirs.coords.items()}
    assert {v.name for v in ours.shared_var_keys} <= {v.name for v in theirs.shared_var_keys}
    for x in points(ours.n_dim):
        one, other = Compiled(ours).logp(x), Compiled(theirs).logp(x)
        assert one[0] == other[0] == 0
        assert one[1] == pytest.approx(other[1], rel=1e-10)
        np.testing.assert_allclose(one[2], other[2], rtol=1e-9, atol=1e-10 * np.linalg.norm(other[2]))


@pytest.mark.slow
def test_one_text_for_one_structure(runs354, supervised_runs):
    """Priors and runs are data of the code, not a part of it."""
    first = translate(model_of(runs354, supervised_runs)).text
    pairs = ["student_params", "student_tokens"]
    fewer = runs354.drop(index=runs354.index[runs354.duplicated(pairs)][:100])
    reference = reference_run(runs354, None)
    priors = with_priors(default_priors(DEFAULT, reference), {"teacher_power": Prior(1.0, 0.3)})
    assert translate(bd.build_model(fewer, priors=priors, reference=reference)).text == first


HASH_OF_TEXT = """
import hashlib
import bayesdistill as bd
from bayesdistill.compiler.translation import translate
print(hashlib.sha256(translate(bd.build_model(bd.load_runs("busbridge2025"))).text.encode()).hexdigest())
"""


@pytest.mark.slow
def test_every_process_writes_the_same_code():
    command = [sys.executable, "-c", HASH_OF_TEXT]
    texts = set()
    for seed in ("1", "2", "3"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        texts.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(texts) == 1


def test_code_that_llvm_refuses_is_an_error():
    with pytest.raises(RuntimeError):
        compile_text("define i64 @logp() { ret double 0.0 }")


def test_the_documented_internals_exist():
    page = (Path(__file__).parents[1] / "docs" / "explanation" / "compiler.md").read_text()
    rows = re.findall(r"^\| (nutpie|PyTensor|SciPy) \| `([\w.]+)", page, re.MULTILINE)
    assert len(rows) >= 7
    for package, name in rows:
        module, attribute = f"{package.lower()}.{name}".rsplit(".", 1)
        assert hasattr(importlib.import_module(module), attribute), name
