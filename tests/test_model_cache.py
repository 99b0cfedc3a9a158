"""The cache of compiled models: the same fit with and without it, whatever the files contain."""

from __future__ import annotations

import _thread
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill import compiler, files
from bayesdistill.compiler import _compile, cache
from bayesdistill.compiler.cache import file_key, read_program
from bayesdistill.compiler.ir import UnsupportedGraphError
from bayesdistill.compiler.program import Program
from bayesdistill.law import LAWS, Prior, Reference, Term, as_law
from bayesdistill.model import reference_run
from bayesdistill.priors import default_priors, with_priors
from bayesdistill.sampling import _fit as fitting
from bayesdistill.sampling import model_key, nuts
from bayesdistill.sampling.model_key import SOURCES

DEFAULT = LAWS["tied_reducible"]
pytestmark = pytest.mark.filterwarnings("ignore::bayesdistill.ConvergenceWarning")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BAYESDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def short_fit(runs, **options) -> xr.DataTree:
    return bd.fit(runs, draws=50, tune=100, chains=2, seed=3, progress=False, **options)


def assert_identical(one: xr.DataTree, other: xr.DataTree) -> None:
    """Of two fits all that is not a time of day."""
    for group in ("posterior", "sample_stats", "log_likelihood"):
        left, right = (fit[group].to_dataset() for fit in (one, other))
        for dataset in (left, right):
            dataset.attrs.pop("created_at", None)
        xr.testing.assert_identical(left, right)


def problem(runs=None, supervised=None, law=DEFAULT, **settings) -> tuple:
    reference = reference_run(runs, supervised)
    law = as_law(law).for_runs(distilled=runs is not None, supervised=supervised is not None)
    return runs, supervised, default_priors(law, reference, **settings), reference


def a_program(**changes) -> Program:
    program = Program(
        code=bytes(range(256)),
        arrays=[np.arange(3), np.array(0.1), np.ones((2, 3)), np.array([True])],
        shared=[None, "first", "other", None],
        axes=[(0, 2, 0, None), (1, 2, 1, 3)],
        indices=[(0, 1, 3)],
        names=["z", "E"],
        shapes=[(3,), ()],
        n_dim=3,
        n_expanded=4,
        dims={"z": ("coordinate",), "E": ()},
        coords={"coordinate": ["a", "β", "c"], "run": [0, 1]},
    )
    return replace(program, **changes)


def compile_runs(runs, supervised, priors, reference):
    """What `fit` does."""
    return compiler.compile(
        lambda: bd.build_model(runs, supervised, priors=priors, reference=reference),
        model_key.model_key(runs, supervised, priors, reference),
    )


def key_of(*arguments) -> str:
    return file_key(model_key.model_key(*arguments))


def write_program(folder: Path, key: str, program: Program, difference: float = 1e-12) -> None:
    cache.write_program(folder, key, program, difference)


def no_model(*_, **__):
    raise AssertionError("a model is built")


# Fits -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["supervised", *(pytest.param(k, marks=pytest.mark.slow) for k in ("distilled", "joint"))]
)
def test_a_fit_from_the_cache_is_the_same_to_the_last_bit(folder, monkeypatch, runs354, supervised_runs, kind):
    arguments = {
        "supervised": {"runs": None, "supervised": supervised_runs},
        "distilled": {"runs": runs354},
        "joint": {"runs": runs354[::2], "supervised": supervised_runs, "law": DEFAULT.with_effects("teacher")},
    }[kind]
    with monkeypatch.context() as without:
        without.setenv("BAYESDISTILL_CACHE", "off")
        plain = short_fit(**arguments)
    made = short_fit(**arguments)
    with monkeypatch.context() as forbidden:
        forbidden.setattr(fitting, "build_model", no_model)
        found = short_fit(**arguments)
    assert_identical(made, plain)
    assert_identical(found, plain)
    assert len(list(folder.iterdir())) == 1
    assert folder.stat().st_mode & 0o777 == 0o700


FIT_IN_A_PROCESS = """
import sys
from bayesdistill.cli import app
app(["fit", "busbridge2025", "-o", sys.argv[1], "--draws", "50", "--tune", "100", "--quiet"], standalone_mode=False)
print(sorted({"pymc", "pytensor"} & set(sys.modules)))
"""


@pytest.mark.slow
def test_a_fit_from_the_cache_needs_neither_pymc_nor_pytensor(folder, tmp_path):
    said = []
    for name in ("one.nc", "other.nc"):
        command = [sys.executable, "-W", "ignore", "-c", FIT_IN_A_PROCESS, str(tmp_path / name)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        said.append(ran.stdout.splitlines()[-1])
    assert said == ["['pymc', 'pytensor']", "[]"]
    assert_identical(*(bd.load(tmp_path / name) for name in ("one.nc", "other.nc")))


def test_data_of_a_model_from_the_cache_can_be_replaced(folder, runs354):
    arguments = problem(runs354, law="busbridge2025", asymptotic_width=None)  # compiled in half of the time
    first, again = compile_runs(*arguments), compile_runs(*arguments)
    names = {shared.name for shared in again.shared_var_keys}
    assert names == {shared.name for shared in first.shared_var_keys}
    assert names >= {"teacher_loss", "student_loss_observed"}
    with pytest.raises(bd.ModelError, match="do not have the same length"):
        again.with_data(teacher_loss=np.full(3, 2.0))


def test_what_pytensor_compiles_is_not_kept(folder, monkeypatch, runs354):
    def unsupported(model):
        raise UnsupportedGraphError("this")

    monkeypatch.setattr(_compile, "compile_with_numba", lambda model: model.named_vars)
    with monkeypatch.context() as without:
        without.setattr(_compile, "translate", unsupported)
        with pytest.warns(bd.CompilerWarning, match="does not support this"):
            assert "z" in compile_runs(*problem(runs354))
    monkeypatch.setenv("BAYESDISTILL_COMPILER", "numba")
    assert "z" in compile_runs(*problem(runs354))
    assert not folder.exists()


@pytest.mark.slow
def test_a_model_without_a_key_is_not_stored(folder, runs354):
    assert compiler.compile(lambda: bd.build_model(runs354), None).backend == "llvm"
    assert not folder.exists()


def test_a_model_from_the_cache_is_not_verified_again(folder, monkeypatch, supervised_runs):
    arguments = problem(supervised=supervised_runs)
    assert compile_runs(*arguments).backend == "llvm"
    monkeypatch.setattr(_compile, "verify", no_model)
    assert compile_runs(*arguments).backend == "llvm"


def test_a_program_without_a_passed_check_is_not_used(folder):
    for difference in (float("nan"), 1e-7, -1.0):
        write_program(folder, "key", a_program(), difference)
        assert read_program(folder, "key") is None
    write_program(folder, "key", a_program(), 0.0)
    assert read_program(folder, "key") is not None


# Keys -----------------------------------------------------------------------------------------------------------------


def test_the_key_changes_with_everything_that_the_model_depends_on(monkeypatch, runs354, supervised_runs):
    runs, _, priors, reference = problem(runs354)
    key = key_of(runs, None, priors, reference)
    assert key == key_of(runs.copy().drop(columns="experiment"), None, priors, replace(reference))
    changed = runs.copy()
    changed.loc[7, "student_loss"] += 1e-15
    others = {
        "one loss": key_of(changed, None, priors, reference),
        "order of runs": key_of(runs[::-1], None, priors, reference),
        "fewer runs": key_of(runs[:-1], None, priors, reference),
        "another teacher": key_of(runs.assign(teacher="T"), None, priors, reference),
        "reference": key_of(runs, None, priors, Reference(1e9, 1e10, 2.5)),
        "location": key_of(runs, None, with_priors(priors, {"teacher_power": Prior(2.0 + 1e-15, 1.5)}), reference),
        "scale": key_of(runs, None, with_priors(priors, {"teacher_power": Prior(2.0, 1.4)}), reference),
        "fixed": key_of(runs, None, with_priors(priors, {"teacher_power": Prior(2.0, 0.0)}), reference),
        "scale in the table alone": key_of(
            runs, None, replace(priors, table={**priors.table, "teacher_power": Prior(2.0, 1.4)}), reference
        ),
        "supervised runs": key_of(*problem(runs354, supervised_runs)),
        "supervised alone": key_of(*problem(None, supervised_runs)),
        "gamma": key_of(*problem(None, supervised_runs, DEFAULT.with_fixed(gamma=1.0))),
    }
    settings = [{"asymptotic_width": width} for width in (None, 0.02)] + [{"tolerance": 0.02}]
    settings += [{"perfect_teacher_width": 0.005}, {"limited_data_width": 0.005}]
    others |= {str(setting): key_of(*problem(runs354, **setting)) for setting in settings}
    for law in (
        DEFAULT.with_effects(),
        DEFAULT.with_effects("teacher"),
        *(DEFAULT.without_terms(term.name) for term in DEFAULT.terms[2:]),
        DEFAULT.with_fixed(omega=None),
        DEFAULT.with_fixed(omega=0.5),
        DEFAULT.with_residual_noise("ratio"),
        DEFAULT.with_residual_noise("tokens"),
        LAWS["busbridge2025"],
    ):
        others[law.to_json()] = key_of(*problem(runs354, law=law))
    for what, variable, value in (
        ("setting", "PYTENSOR_FLAGS", "floatX=float32"),
        ("settings in a file", "PYTENSORRC", __file__),
    ):
        with monkeypatch.context() as environment:
            environment.setenv(variable, value)
            others[what] = key_of(runs, None, priors, reference)
    for what, module, name, function in (
        ("source of the model", model_key, "digest_of_sources", lambda *_: "0"),
        ("source of the compiler", cache, "digest_of_sources", lambda *_: "0"),
        ("version", cache, "version", lambda name: "99" if name == "pymc" else "1"),
        ("processor", cache, "processor", lambda: ["another"]),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, function)
            others[what] = key_of(runs, None, priors, reference)
    assert len({key, *others.values()}) == 1 + len(others), others
    with monkeypatch.context() as environment:
        environment.setenv("PYTENSOR_FLAGS", "base_compiledir=/one")
        at_one = key_of(runs, None, priors, reference)
        environment.setenv("PYTENSOR_FLAGS", "base_compiledir=/other")
        assert key_of(runs, None, priors, reference) == at_one


def test_a_law_with_parts_of_ones_own_has_no_key(runs354):
    for law in (
        DEFAULT.with_terms(Term("nothing")),
        DEFAULT.with_residual_noise(replace(DEFAULT.residual_noise, sentence="Mine.")),
    ):
        assert model_key.model_key(*problem(runs354, law=law)) is None
    assert model_key.model_key(*problem(runs354)) is not None


def test_the_key_changes_with_the_models_whose_runs_share_an_effect(supervised_runs):
    """Only where the law has the effect does the column `model` determine anything."""
    law = DEFAULT.with_effects("model")
    keys = {
        key_of(*problem(None, supervised_runs.assign(model=names), law=law))
        for names in (["a"] * 32, ["a", "b"] * 16, ["b", "a"] * 16)
    }
    assert len(keys) == 3


def test_the_key_covers_everything_that_builds_the_model():
    """Everything that `build_model` imports, directly or not, can change the model; `datasets` only reads runs."""
    package = Path(bd.__file__).parent
    reached, waiting = {"datasets"}, {"model"}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        files = [package / f"{name}.py"] if (package / f"{name}.py").exists() else (package / name).rglob("*.py")
        source = "\n".join(path.read_text() for path in files)
        waiting |= set(re.findall(r"^\s*(?:from|import) bayesdistill\.(\w+)", source, re.MULTILINE)) - reached
    assert reached - {"datasets"} == {name.removesuffix(".py") for name in SOURCES}


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_program_is_read_as_it_was_written(folder):
    program = a_program()
    write_program(folder, "key", program)
    read = read_program(folder, "key")
    assert replace(read, arrays=[]) == replace(program, arrays=[])
    for one, other in zip(read.arrays, program.arrays, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_array_equal(one, other)
    assert read_program(folder, "other") is None


def test_damaged_and_foreign_files_are_ignored_and_replaced(folder):
    write_program(folder, "key", a_program())
    write_program(folder, "other", a_program(n_dim=4))
    path = folder / "key.model"
    whole = path.read_bytes()
    flipped = [bytearray(whole) for _ in range(40)]
    for number, content in enumerate(flipped):
        content[number * (len(whole) - 1) // 39] ^= 1
    cut = [whole[: len(whole) * number // 20] for number in range(20)]
    foreign = b"anything"
    signed = hashlib.sha256(foreign).digest() + foreign
    for content in [*flipped, *cut, whole + b"x", foreign, signed, (folder / "other.model").read_bytes()]:
        path.write_bytes(content)
        assert read_program(folder, "key") is None
        write_program(folder, "key", a_program())
        assert path.read_bytes() == whole
        assert read_program(folder, "key") is not None
    path.unlink()
    path.mkdir()
    assert read_program(folder, "key") is None
    write_program(folder, "key", a_program())
    assert path.is_dir()
    assert {each.name for each in folder.iterdir()} == {"key.model", "other.model"}


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
CHANGES = {
    "written by all": lambda path: path.chmod(0o666),
    "written by its group": lambda path: path.chmod(0o620),
    "a link": linked,
    "a FIFO": fifo,
    "a link to a device": endless,
    "of another user": lambda path: os.chown(path, 1002, 1002),
}


@pytest.mark.parametrize("change", [pytest.param(name, marks=as_root if "user" in name else ()) for name in CHANGES])
def test_files_that_others_may_have_written_are_not_executed(folder, change):
    write_program(folder, "key", a_program())
    path = folder / "key.model"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_program(folder, "key") is not None
    CHANGES[change](path)
    before = {each.name: each.lstat().st_ino for each in folder.iterdir()}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(read_program, folder, "key").result(timeout=20) is None
    write_program(folder, "key", a_program(n_dim=5))
    assert read_program(folder, "key").n_dim == 5  # the file was replaced
    assert path.stat().st_mode & 0o777 == 0o600
    assert not path.is_symlink()
    if change == "a link":
        assert (folder / "key.elsewhere").stat().st_ino == before["key.elsewhere"]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_folders_that_others_can_rename_are_not_used(folder, tmp_path, depth):
    write_program(folder, "key", a_program())
    place = (folder, folder.parent, tmp_path)[depth]
    for mode, safe in (
        (0o755, True),
        (0o1777, depth > 0),
        (0o1770, depth > 0),
        (0o777, False),
        (0o770, depth > 0),  # the group of the user
    ):
        place.chmod(mode)
        assert (read_program(folder, "key") is not None) == safe, oct(mode)
        write_program(folder, "other", a_program())
        assert (folder / "other.model").exists() == safe, oct(mode)
        (folder / "other.model").unlink(missing_ok=True)
    place.chmod(0o700)


@as_root
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_folders_of_other_users_and_groups_are_not_used(folder, tmp_path, depth):
    write_program(folder, "key", a_program())
    place = (folder, folder.parent, tmp_path)[depth]
    for user, group, mode in ((1002, 0, 0o755), (0, 1002, 0o770)):
        place.chmod(mode)
        os.chown(place, user, group)
        assert read_program(folder, "key") is None
        os.chown(place, 0, 0)
        place.chmod(0o700)
        assert read_program(folder, "key") is not None


def test_a_linked_folder_is_used_and_new_folders_are_private(tmp_path):
    """Home folders link their cache to another disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    mask = os.umask(0)
    try:
        write_program(tmp_path / "home" / "new" / "models", "key", a_program())
    finally:
        os.umask(mask)
    assert read_program(tmp_path / "home" / "new" / "models", "key") is not None
    for place in (tmp_path / "disk" / "new", tmp_path / "disk" / "new" / "models"):
        assert place.stat().st_mode & 0o777 == 0o700


def test_temporary_files_of_killed_writers_do_not_pile_up(folder):
    write_program(folder, "key", a_program())
    for number in range(30):
        (folder / f"{files.TEMPORARY}{number:020d}").touch()
    write_program(folder, "key", a_program())
    assert len(list(folder.iterdir())) == cache.KEPT
    assert read_program(folder, "key") is not None


@pytest.mark.slow
def test_a_damaged_file_does_not_stop_a_fit(folder, runs354):
    arguments = problem(runs354)
    compile_runs(*arguments)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert compile_runs(*arguments).n_dim > 0
    assert len(path.read_bytes()) == len(whole)


def test_a_folder_into_which_others_can_write_is_not_used(folder):
    write_program(folder, "key", a_program())
    folder.chmod(0o777)
    assert read_program(folder, "key") is None
    write_program(folder, "other", a_program())
    assert [path.name for path in folder.iterdir()] == ["key.model"]


def test_where_nothing_can_be_written_nothing_is(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setenv("BAYESDISTILL_CACHE", str(file))
    write_program(cache.cache_folder(), "key", a_program())
    assert read_program(cache.cache_folder(), "key") is None

    for name in ("relative", "file/below"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BAYESDISTILL_CACHE", name)
        write_program(cache.cache_folder(), "key", a_program())
        assert (read_program(cache.cache_folder(), "key") is not None) == (name == "relative")
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    monkeypatch.setenv("BAYESDISTILL_CACHE", "relative")
    write_program(cache.cache_folder(), "key", a_program())
    assert read_program(cache.cache_folder(), "key") is None
    monkeypatch.chdir(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    write_program(tmp_path / "full", "key", a_program())
    assert list((tmp_path / "full").iterdir()) == []


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for asked, place in (
        *((word, None) for word in ("off", "OFF", "Off", " off ", "0", "false", "NO", "None")),
        ("relative", Path("relative/models")),
        ("~nobody-of-this-name/x", None),
        (str(tmp_path / "own"), tmp_path / "own" / "models"),
        ("~/own", tmp_path / "own" / "models"),
        ("", tmp_path / ".cache" / "bayesdistill" / "models"),
    ):
        monkeypatch.setenv("BAYESDISTILL_CACHE", asked)
        assert cache.cache_folder() == place
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("BAYESDISTILL_CACHE")
    assert cache.cache_folder() == tmp_path / "xdg" / "bayesdistill" / "models"


def test_the_models_used_last_are_kept(folder):
    for number in range(20):
        write_program(folder, f"{number:02d}", a_program())
        os.utime(folder / f"{number:02d}.model", (number, number))
        assert read_program(folder, "00") is not None  # used again and again
    kept = {f"{number:02d}.model" for number in (0, *range(5, 20))}
    assert {path.name for path in folder.iterdir()} == kept


def test_writers_at_the_same_time_do_not_disturb_one_another(folder):
    programs = [a_program(n_dim=number, arrays=[np.full(20_000, number)] * 4) for number in range(4)]

    def write_and_read(number: int) -> bool:
        own = programs[number % 4]
        write_program(folder, f"own{number % 20}", own)
        write_program(folder, "same", own)
        read = read_program(folder, "same")
        return read is None or (read.arrays[0] == read.n_dim).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write_and_read, range(80)))
    assert read_program(folder, "same") is not None
    assert len(list(folder.iterdir())) <= cache.KEPT


# While the sampler works ----------------------------------------------------------------------------------------------


class Sampler:
    def __init__(self) -> None:
        self.done: list[str] = []

    def wait(self) -> None:
        self.done.append("waited")
        raise RuntimeError("of the sampler")

    def cancel(self) -> None:
        self.done.append("cancelled")


def sample_with(sampler: Sampler, monkeypatch) -> None:
    monkeypatch.setattr("nutpie.sample", lambda *_, **__: sampler)
    nuts.sample(None, cores=1, progress=False, chains=1, draws=10, tune=10, seed=0)


def test_an_interrupt_cancels_the_sampler_during_the_imports(monkeypatch):
    """Imports run in a thread: some packages swallow the KeyboardInterrupt that the main thread gets."""
    imports, finish = threading.Event(), threading.Event()

    def slow() -> None:
        imports.set()
        finish.wait(30)

    class Interrupted(Sampler):
        def wait(self) -> None:
            self.done.append("waited")
            assert imports.wait(30)
            raise KeyboardInterrupt

    monkeypatch.setattr(nuts, "load_ahead", slow)
    sampler = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        sample_with(sampler, monkeypatch)
    assert sampler.done == ["waited", "cancelled"]
    assert not finish.is_set()
    finish.set()


def test_an_import_that_fails_is_no_fault_of_the_sampler(monkeypatch):
    monkeypatch.setattr(nuts, "_LATER", ("no_such_package", "json", "bayesdistill.no_such_module"))
    sampler = Sampler()
    with pytest.raises(bd.ModelError, match="of the sampler"):
        sample_with(sampler, monkeypatch)
    assert sampler.done == ["waited", "cancelled"]


@pytest.mark.slow
def test_an_interrupted_fit_does_not_sample_on(runs354, monkeypatch):
    def begun() -> None:
        threading.Timer(2, _thread.interrupt_main).start()

    monkeypatch.setattr(nuts, "load_ahead", begun)
    with pytest.raises(KeyboardInterrupt):
        bd.fit(runs354, draws=500_000, progress=False)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.2
