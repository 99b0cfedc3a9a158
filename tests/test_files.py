"""Files are replaced whole or not at all, and files that cannot be trusted are refused by name."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill import files, posterior
from bayesdistill.errors import FileError, ParameterError
from bayesdistill.files import check_writable, make_folder, write_file


@pytest.fixture
def small_fit(jittered_draws) -> xr.DataTree:
    """A tree like a fit's, with floats, integers, booleans and text."""
    draws = jittered_draws.isel(draw=slice(0, 50))
    constant = xr.Dataset({"student_params": ("run", [1e8, 2e8]), "teacher": ("run", np.array(["T1", "Größe"]))})
    stats = xr.Dataset(
        {
            "diverging": (("chain", "draw"), np.zeros((4, 50), dtype=bool)),
            "depth": (("chain", "draw"), np.full((4, 50), 3)),
        }
    )
    tree = xr.DataTree.from_dict({"posterior": draws, "constant_data": constant, "sample_stats": stats})
    tree.attrs = {"bayesdistill_format": posterior.FORMAT, "bayesdistill_provenance": '{"seed": 7}'}
    return tree


DATASET = xr.Dataset({"a": ("x", [1.0])})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Writing --------------------------------------------------------------------------------------------------------------


def full_disk(*_) -> None:
    raise OSError(28, "No space left on device")


def killed_before(call: str, path: Path, content: bytes) -> None:
    """Write a file in a process that is killed at a call of `os`."""
    code = (
        "import os, signal, sys\n"
        "from bayesdistill.files import write_file\n"
        f"os.{call} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_file(sys.argv[1], sys.stdin.buffer.read())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], input=content, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    write_file(path, b"earlier")
    assert contents(tmp_path) == {"table.csv": b"earlier"}
    seen = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append((path.read_bytes(), os.fstat(handle).st_size)))
    write_file(path, b"later")
    assert seen == [(b"earlier", 5)]
    assert contents(tmp_path) == {"table.csv": b"later"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_what_goes_wrong_while_writing_leaves_the_earlier_file(tmp_path, monkeypatch, error):
    path = tmp_path / "table.csv"
    path.write_text("earlier")

    def interrupted(handle: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(error):
        write_file(path, b"later")
    assert contents(tmp_path) == {"table.csv": b"earlier"}


def test_a_full_disk_is_a_file_error(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("earlier")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(FileError, match=r"Cannot write .*table\.csv: No space left on device\.$"):
        write_file(path, b"later")
    assert contents(tmp_path) == {"table.csv": b"earlier"}


@pytest.mark.parametrize("call", ["fsync", "chmod", "replace"])
def test_a_killed_process_leaves_nothing_after_the_next_write(tmp_path, call):
    path = tmp_path / "table.csv"
    path.write_text("earlier")
    killed_before(call, path, b"later" * 1000)
    abandoned = [name for name in contents(tmp_path) if name.startswith(files.TEMPORARY)]
    assert len(abandoned) == 1
    assert path.read_text() == "earlier"
    write_file(tmp_path / "other.csv", b"other")
    assert abandoned[0] in contents(tmp_path)  # it may belong to a writer that does not lock its files
    write_file(path, b"again")
    assert contents(tmp_path) == {"table.csv": b"again", "other.csv": b"other"}


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_leave_nothing():
    """`python tests/kill_writers.py` kills each writer 40 times."""
    kills = 4
    script = Path(__file__).with_name("kill_writers.py")
    done = subprocess.run([sys.executable, script, "--kills", str(kills)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(rf"^(\w+): {kills} kills, (\d+) during", done.stdout, re.MULTILINE)
    assert [name for name, _ in found] == ["fit", "plan", "table", "report", "page", "figure", "log", "cache"]
    assert sum(int(during) for _, during in found) > 0


def test_files_of_writers_at_work_and_foreign_files_are_not_removed(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    killed_before("replace", path, b"later")
    (abandoned,) = tmp_path.iterdir()
    start = abandoned.name[:-8]
    abandoned.unlink()
    os.mkfifo(tmp_path / f"{start}aaaaaaaa")
    (tmp_path / f"{start}bbbbbbbb").symlink_to(tmp_path / "elsewhere")
    (tmp_path / f"{start}cccccccc").mkdir()
    (tmp_path / f"{files.TEMPORARY}notes.txt").write_text("mine")
    before = {each.name for each in tmp_path.iterdir()}
    names = []

    def write_meanwhile(handle: int) -> None:
        monkeypatch.undo()
        write_file(path, b"second")
        names.extend(each.name for each in tmp_path.iterdir())

    monkeypatch.setattr(os, "fsync", write_meanwhile)
    write_file(path, b"first")
    assert len(set(names) - before) == 2  # the file, and the temporary one of the first writer
    assert path.read_bytes() == b"first"
    assert {each.name for each in tmp_path.iterdir()} == {*before, "table.csv"} - {f"{start}aaaaaaaa"}


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    path = tmp_path / "table.csv"
    written = [bytes([65 + number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_file(path, content), written * 5))
    assert path.read_bytes() in written
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def unsupported(*_) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", unsupported)
    write_file(tmp_path / "table.csv", b"content")
    assert contents(tmp_path) == {"table.csv": b"content"}


NOT_PATHS = (3, None, b"x.nc", "null\0character.nc", "~nobody-of-this-name/x.nc", "")


@pytest.mark.parametrize(
    "write", [check_writable, lambda path: write_file(path, b"x"), lambda path: bd.save(DATASET, path)]
)
def test_places_that_cannot_be_written_to(tmp_path, monkeypatch, write):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("earlier")
    for path, said in (
        (tmp_path / "nowhere" / "x.nc", "the folder .*nowhere does not exist"),
        (tmp_path / "file" / "x.nc", "file is not a folder"),
        (tmp_path, "it is a folder"),
        (tmp_path / ("n" * 300), "File name too long"),
        ("n" * 100_000, "File name too long"),
        (f"{'n' * 100_000}/x.nc", "File name too long"),
        *((path, "Cannot write") for path in NOT_PATHS),
    ):
        with pytest.raises(FileError, match=said) as caught:
            write(path)
        assert len(str(caught.value)) < 1000
    assert (tmp_path / "file").read_text() == "earlier"
    assert not list(tmp_path.glob(f"{files.TEMPORARY}*"))


def test_a_folder_without_permission_is_noticed_before_the_work(tmp_path, monkeypatch):
    """Root may write everywhere, so that the answer of the system is replaced."""

    def denied(*_, **__) -> None:
        raise PermissionError(13, "Permission denied")

    check_writable(tmp_path / "fit.nc")
    assert contents(tmp_path) == {}
    monkeypatch.setattr(tempfile, "mkstemp", denied)
    with pytest.raises(FileError, match=r"Cannot write .*fit\.nc: Permission denied"):
        check_writable(tmp_path / "fit.nc")


def test_folders_that_will_be_created(tmp_path):
    check_writable(tmp_path / "a" / "b" / "fit.nc", parents=True)
    assert contents(tmp_path) == {}
    (tmp_path / "file").write_text("a file")
    with pytest.raises(FileError, match="file is not a folder"):
        check_writable(tmp_path / "file" / "b" / "fit.nc", parents=True)
    with pytest.raises(FileError, match=r"Cannot create the folder .*file"):
        make_folder(tmp_path / "file" / "b")
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_what_cannot_be_written_is_kept_in_another_folder(small_fit, tmp_path, monkeypatch):
    other, here = tmp_path / "other", tmp_path / "here"
    other.mkdir()
    here.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    monkeypatch.setenv("HOME", str(other))
    monkeypatch.chdir(here)
    with pytest.raises(FileError, match=r"nowhere does not exist\. The content is in .*\.nc instead\.") as caught:
        bd.save(small_fit, tmp_path / "nowhere" / "fit.nc")
    (kept,) = other.iterdir()
    assert str(kept) in str(caught.value)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    xr.testing.assert_identical(bd.load(kept), small_fit)
    # The first folder may be full too.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "deleted"))
    with pytest.raises(FileError, match=re.escape(str(here))):
        bd.write_table(pd.DataFrame({"a": [1]}), tmp_path / "nowhere" / "table.csv")
    (kept,) = here.iterdir()
    assert kept.read_text() == "a\n1\n"
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(FileError, match=r"No space left on device\. It cannot be written to another folder either\."):
        bd.save(small_fit, tmp_path / "fit.nc")
    assert {each.name for each in tmp_path.iterdir()} == {"other", "here"}
    assert [len(list(folder.glob("bayesdistill-*"))) for folder in (other, here)] == [1, 1]


def test_a_new_file_has_the_permissions_of_a_plain_one(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    write_file(tmp_path / "whole", b"x")
    assert stat.S_IMODE((tmp_path / "whole").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_link_stays_a_link_and_its_target_keeps_its_mode(tmp_path):
    (tmp_path / "data").mkdir()
    target, link = tmp_path / "data" / "table.csv", tmp_path / "link.csv"
    target.write_text("earlier")
    target.chmod(0o600)
    link.symlink_to(target)
    write_file(link, b"later")
    assert link.is_symlink()
    assert target.read_text() == "later"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert contents(tmp_path / "data") == {"table.csv": b"later"}
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(FileError, match="loop"):
        write_file(loop, b"later")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_file_keeps_its_owner_and_group(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("earlier")
    os.chown(path, 1002, 1003)
    path.chmod(0o640)
    write_file(path, b"later")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1002, 1003, 0o640)
    assert path.read_text() == "later"


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    fifo, read_only, linked = (tmp_path / name for name in ("fifo", "read-only", "linked"))
    os.mkfifo(fifo)
    for path in (read_only, linked):
        path.write_text("earlier")
    read_only.chmod(0o444)
    (tmp_path / "other").hardlink_to(linked)
    for path, said in (
        (fifo, "not a regular file"),
        (Path(os.devnull), "not a regular file"),
        (read_only, "read-only"),
        (linked, "2 hard links"),
    ):
        for write in (check_writable, lambda path: write_file(path, b"later")):
            with pytest.raises(FileError, match=said):
                write(path)
    assert read_only.read_text() == linked.read_text() == "earlier"


def test_long_names_and_the_home_folder(tmp_path, monkeypatch, published_draw):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = "n" * 245 + ".nc"
    assert bd.save(published_draw, f"~/{name}") == tmp_path / name
    assert bd.load(f"~/{name}")["E"].item() == 1.22
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits of a process are those of POSIX")
def test_a_fit_that_does_not_fit_on_the_disk_is_an_error_not_the_end_of_the_process(small_fit, tmp_path):
    """A limit on the size of files stands in for a full disk; the process is one of its own, because HDF5 once ended it."""
    bd.save(small_fit, tmp_path / "fit.nc")
    code = (
        "import resource, signal, sys, bayesdistill as bd\n"
        "fit = bd.load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    bd.save(fit, sys.argv[2])\nexcept bd.FileError as error:\n    print('FileError', error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "fit.nc"), str(tmp_path / "copy.nc")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("FileError Cannot write")
    assert [path.name for path in tmp_path.iterdir()] == ["fit.nc"]


# save and load --------------------------------------------------------------------------------------------------------


def test_a_fit_comes_back_as_it_was(small_fit, tmp_path):
    before = small_fit.copy(deep=True)
    path = bd.save(small_fit, tmp_path / "fit.nc")
    assert path == tmp_path / "fit.nc"
    loaded = bd.load(str(path))
    xr.testing.assert_identical(loaded, before)
    xr.testing.assert_identical(small_fit, before)
    assert isinstance(loaded, xr.DataTree)
    for group in before.groups:
        for name, variable in before[group].data_vars.items():
            assert loaded[group][name].dtype.kind == variable.dtype.kind, name
            np.testing.assert_array_equal(loaded[group][name].values, variable.values)
    assert bd.provenance(loaded) == {"seed": 7}
    # It is in memory, and its file is closed.
    path.unlink()
    assert float(loaded["posterior"]["E"].sum()) == float(before["posterior"]["E"].sum())


def test_a_plan_comes_back_as_it_was(published_draw, tmp_path):
    plan = bd.plan(published_draw, "1B", [1e18, 1e21], "best case")
    before = plan.copy(deep=True)
    bd.save(plan, tmp_path / "plan.nc")
    xr.testing.assert_identical(plan, before)
    loaded = bd.load(tmp_path / "plan.nc")
    assert isinstance(loaded, xr.Dataset)
    xr.testing.assert_equal(loaded, plan)
    assert {key: value for key, value in loaded.attrs.items() if key != "bayesdistill_format"} == plan.attrs


def test_a_fit_that_lost_its_attributes_can_still_be_kept(small_fit, tmp_path):
    bare = xr.DataTree.from_dict({"posterior": small_fit["posterior"].to_dataset()})
    loaded = bd.load(bd.save(bare, tmp_path / "fit.nc"))
    xr.testing.assert_equal(loaded["posterior"].to_dataset(), bare["posterior"].to_dataset())
    assert bare.attrs == {}


def test_a_file_that_is_open_elsewhere_can_be_replaced(small_fit, tmp_path):
    path = bd.save(small_fit, tmp_path / "fit.nc")
    with xr.open_datatree(path, engine="h5netcdf") as lazy:
        bd.save(small_fit.isel(draw=slice(0, 10)), path)
        assert lazy["posterior"].sizes["draw"] == 50
    assert bd.load(path)["posterior"].sizes["draw"] == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
def test_an_interrupted_save_loses_nothing(small_fit, tmp_path, monkeypatch, error):
    path = bd.save(small_fit, tmp_path / "fit.nc")
    before = contents(tmp_path)

    def interrupted(handle: int) -> None:
        os.ftruncate(handle, 1000)
        raise error

    monkeypatch.setattr(os, "fsync", interrupted)
    expected = FileError if isinstance(error, OSError) else error
    with pytest.raises(expected):
        bd.save(small_fit.isel(draw=slice(0, 5)), path)
    monkeypatch.undo()
    assert contents(tmp_path) == before
    xr.testing.assert_identical(bd.load(path), small_fit)


@pytest.mark.parametrize("thing", [None, "fit", {"E": 1.0}, 3])
def test_only_fits_and_plans_are_saved(thing, tmp_path):
    with pytest.raises(ParameterError, match=r"`result` must be a DataTree \(fit\) or Dataset \(plan\), got"):
        bd.save(thing, tmp_path / "x.nc")
    assert contents(tmp_path) == {}


def test_what_netcdf_cannot_hold_is_said(tmp_path):
    path = tmp_path / "plan.nc"
    path.write_bytes(b"earlier")
    for dataset in (xr.Dataset(attrs={"teachers": None}), xr.Dataset({"teachers": ("x", np.array([object(), 1]))})):
        with pytest.raises(ParameterError, match=r"Cannot write .*plan\.nc: .*'teachers'"):
            bd.save(dataset, path)
    assert contents(tmp_path) == {"plan.nc": b"earlier"}


# Files that cannot be trusted -----------------------------------------------------------------------------------------


def refused(path: Path, said: str) -> None:
    with pytest.raises(FileError, match=said) as caught:
        bd.load(path)
    assert path.name in str(caught.value)


def test_files_that_are_no_netcdf_files(tmp_path):
    refused(tmp_path / "missing.nc", "does not exist")
    (tmp_path / "folder.nc").mkdir()
    refused(tmp_path / "folder.nc", "it is a folder")
    for name, content in (
        ("empty.nc", b""),
        ("table.nc", b"params,tokens,loss\n1e8,2e9,3.1\n"),
        ("zeros.nc", bytes(4096)),
        ("signature.nc", b"\x89HDF\r\n\x1a\nnothing that follows is a file"),
        ("classic.nc", b"CDF\x01" + bytes(100)),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "is not a netCDF file or is damaged")


def test_truncated_files(small_fit, tmp_path):
    whole = bd.save(small_fit, tmp_path / "fit.nc").read_bytes()
    cut = tmp_path / "cut.nc"
    for length in (1, 7, 8, 100, 2000, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        refused(cut, "damaged")


def test_every_damaged_number_is_noticed(small_fit, tmp_path):
    path = bd.save(small_fit, tmp_path / "fit.nc")
    whole = path.read_bytes()
    for name, share in (("E", 0.0), ("c0", 0.5), ("nu", 1.0)):
        values = small_fit["posterior"][name].values.tobytes()
        at = whole.find(values)
        assert at > 0
        damaged = bytearray(whole)
        damaged[at + int(share * (len(values) - 1))] ^= 0x01  # the smallest change there is
        path.write_bytes(bytes(damaged))
        refused(path, "damaged")


def test_random_damage_gives_an_error_of_the_package_or_the_same_numbers(small_fit, tmp_path):
    path = bd.save(small_fit, tmp_path / "fit.nc")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    noticed = 0
    for _ in range(12):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=4):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        try:
            loaded = bd.load(path)
        except FileError:
            noticed += 1
            continue
        # Names, attributes and padding carry no checksums, but every number that is still there is right.
        for name, variable in loaded["posterior"].data_vars.items():
            if name in small_fit["posterior"].data_vars:
                np.testing.assert_array_equal(variable.values, small_fit["posterior"][name].values)
    assert noticed >= 6


def test_files_of_others(tmp_path):
    import h5py

    path = tmp_path / "foreign.nc"
    xr.Dataset({"E": (("chain", "draw"), [[1.2]])}).to_netcdf(path, engine="h5netcdf")
    refused(path, "was not written by bayesdistill.save")
    with h5py.File(path, "w") as file:
        file["weights"] = np.arange(10)
    refused(path, "was not written by bayesdistill.save")
    xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": (("chain", "draw"), [[1.2]])})}).to_netcdf(path)
    refused(path, "was not written by bayesdistill.save")


@pytest.mark.parametrize("version", [posterior.FORMAT + 1, 0, "new"])
def test_files_of_another_format(small_fit, tmp_path, version):
    path = tmp_path / "later.nc"
    small_fit.attrs["bayesdistill_format"] = version
    small_fit.to_netcdf(path, engine="h5netcdf")
    refused(
        path,
        f"has format {version}, but this version of bayesdistill reads format {posterior.FORMAT}. Update bayesdistill",
    )


# Digest of sources ----------------------------------------------------------------------------------------------------


def test_the_digest_covers_python_and_toml_files_at_any_depth(tmp_path, monkeypatch):
    nested = tmp_path / "law" / "terms"
    nested.mkdir(parents=True)
    (tmp_path / "law" / "__init__.py").write_text("a = 1\n")
    (nested / "floor.py").write_text("b = 2\n")
    (tmp_path / "model.py").write_text("c = 3\n")
    monkeypatch.setattr(files.resources, "files", lambda name: tmp_path)
    digest = files.digest_of_sources.__wrapped__  # without the cache
    before = digest("law", "model.py")
    assert digest("law", "model.py") == before
    (nested / "notes.txt").write_text("not a source")
    assert digest("law", "model.py") == before
    (nested / "floor.py").write_text("b = 3\n")
    changed = digest("law", "model.py")
    (tmp_path / "law" / "symbols.toml").write_text("d = 4\n")
    declared = digest("law", "model.py")
    (nested / "floor.py").rename(tmp_path / "law" / "floor.py")
    moved = digest("law", "model.py")
    (tmp_path / "model.py").write_text("c = 4\n")
    assert len({before, changed, declared, moved, digest("law", "model.py")}) == 5
    with pytest.raises(FileNotFoundError):
        digest("no_such_file.py")


def test_files_of_others_in_a_sticky_folder_are_named_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "x.nc").write_bytes(b"earlier")
    (tmp_path / "x.nc").chmod(0o666)
    tmp_path.chmod(0o1777)
    check_writable(tmp_path / "x.nc")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(FileError, match="belongs to another user"):
        check_writable(tmp_path / "x.nc")
    check_writable(tmp_path / "new.nc")
