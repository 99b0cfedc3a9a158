"""Files of fits and answers: what is stored comes back, and what is damaged or points elsewhere is rejected."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import bayesdistill as bd
from bayesdistill.errors import DigestWarning, FileError, ParameterError
from bayesdistill.sampling import digests


def rejected(path: Path, said: str) -> None:
    with pytest.raises(FileError, match=said) as caught:
        bd.load(path)
    assert path.name in str(caught.value)
    assert len(str(caught.value)) < 1000


# Reading once ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(published_draw, tmp_path) -> Path:
    return bd.save(published_draw, tmp_path / "draw.nc")


def test_other_programs_read_the_file(saved):
    assert xr.load_dataset(saved, engine="h5netcdf")["E"].item() == 1.22


def test_every_changed_byte_is_noticed(saved):
    whole = saved.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(0, len(whole), len(whole) // 50), *range(len(whole) - 60, len(whole))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(changed)
        rejected(saved, "damaged")


def test_a_file_without_its_digest_is_damaged_not_old(saved):
    whole = saved.read_bytes()
    for content in (whole[:-53], whole[:-1], whole + b"\0", whole + whole):
        saved.write_bytes(content)
        rejected(saved, "damaged or was changed by another program")
    saved.write_bytes(whole)
    with xr.load_dataset(saved, engine="h5netcdf") as dataset:
        dataset["E"].attrs["units"] = "bits"
        dataset.to_netcdf(saved, engine="h5netcdf", mode="w")
    rejected(saved, "changed by another program")


def test_files_of_earlier_versions_are_read_with_a_warning(published_draw, tmp_path):
    path = tmp_path / "old.nc"
    earlier = published_draw.assign_attrs(bayesdistill_format=1)
    earlier.to_netcdf(path, engine="h5netcdf", encoding={"E": {"fletcher32": True}})  # with _FillValue
    with pytest.warns(DigestWarning, match=r"old\.nc .*stored no digest.*Save the result again") as caught:
        loaded = bd.load(path)
    assert Path(caught[0].filename) == Path(__file__)
    xr.testing.assert_identical(loaded, published_draw)
    bd.save(loaded, path)
    xr.testing.assert_identical(bd.load(path), published_draw)  # without a warning


def test_what_is_no_ordinary_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo.nc")
    (tmp_path / "zero.nc").symlink_to("/dev/zero")
    (tmp_path / "loop.nc").symlink_to(tmp_path / "loop.nc")
    for name, said in (
        ("fifo.nc", "not a regular file"),
        ("zero.nc", "not a regular file"),
        ("loop.nc", "Cannot read"),
        (".", "it is a folder"),
        ("no\0name.nc", "null"),
        ("n" * 300 + ".nc", "too long"),
    ):
        with pytest.raises(FileError, match=said):
            bd.load(tmp_path / name)
    for path in (None, 3, b"x.nc", "~nobody-of-this-name/x.nc"):
        with pytest.raises(FileError, match="Cannot read"):
            bd.load(path)  # type: ignore[arg-type]


def test_a_file_beyond_the_limit_is_not_read(tmp_path, saved, monkeypatch):
    with open(tmp_path / "sparse.nc", "wb") as file:
        file.truncate(2**40)
    rejected(tmp_path / "sparse.nc", "1024.0 GB; files have at most 4.0 GB")
    monkeypatch.setattr(digests, "_LARGEST", 1000)
    with pytest.raises(ParameterError, match="files have at most"):
        bd.save(xr.Dataset({"a": ("x", np.zeros(1000))}), tmp_path / "large.nc")
    assert not (tmp_path / "large.nc").exists()


@pytest.mark.parametrize("lock", [fcntl.flock, fcntl.lockf])
def test_a_locked_file_is_not_called_damaged(saved, lock):
    code = f"""
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.{lock.__name__}(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""
    whole = saved.read_bytes()
    command = [sys.executable, "-c", code, str(saved)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        assert bd.load(saved)["E"].item() == 1.22  # it is whole
        saved.write_bytes(whole[:5000])  # in the middle of writing
        rejected(saved, "is open for writing in another program")
        other.communicate("")
    rejected(saved, "damaged")


def test_a_file_that_h5py_has_open_for_writing(saved):
    import h5py

    with h5py.File(saved, "r"):
        assert bd.load(saved)["E"].item() == 1.22
    with h5py.File(saved, "r+") as file:  # cuts what follows its content
        file["E"].attrs["units"] = "bits"
        file.flush()
        rejected(saved, "is open for writing in another program")
    rejected(saved, "changed by another program")


# What netCDF cannot store ---------------------------------------------------------------------------------------------


def test_booleans_in_attributes_are_stored_as_numbers(tmp_path):
    dataset = xr.Dataset(
        {"a": ("x", [1.0, 2.0], {"checked": np.True_, "each": [True, False]})},
        attrs={"converged": True, "failed": False},
    )
    before = dataset.copy(deep=True)
    loaded = bd.load(bd.save(dataset, tmp_path / "x.nc"))
    xr.testing.assert_identical(loaded, dataset)
    xr.testing.assert_identical(dataset, before)
    assert isinstance(dataset.attrs["converged"], bool)
    assert loaded.attrs["converged"] == 1


def test_settings_of_an_earlier_file_are_not_kept(tmp_path):
    dataset = xr.Dataset({"a": ("x", [1.0, np.nan]), "b": ("x", [1, 2])})
    dataset["a"].encoding = {"scale_factor": 0.1, "dtype": "int16", "_FillValue": -1, "zlib": True}
    xr.testing.assert_identical(bd.load(bd.save(dataset, tmp_path / "x.nc")), dataset)


STRANGE = {
    "None": (xr.Dataset(attrs={"source": None}), "'source' of the result is None.* JSON"),
    "dict": (xr.Dataset({"a": ((), 1, {"of": {"b": 1}})}), "'of' of variable 'a' is {'b': 1}"),
    "complex": (xr.Dataset(attrs={"z": 1j}), "'z' of the result"),
    "mixed": (xr.Dataset(attrs={"list": [1, "a"]}), "'list' of the result"),
    "ragged": (xr.Dataset(attrs={"list": [[1], [1, 2]]}), "'list' of the result"),
    "large": (xr.Dataset(attrs={"n": 2**70}), "'n' of the result"),
    "date": (xr.Dataset(attrs={"on": np.datetime64("2025-01-01")}), "'on' of the result"),
    "attribute with /": (xr.Dataset(attrs={"a/b": 1}), "'a/b'.*Rename"),
    "attribute of netCDF": (xr.Dataset({"a": ((), 1, {"DIMENSION_LIST": 1})}), "'DIMENSION_LIST' of variable 'a'.*Rename"),
    "attribute that is a number": (xr.Dataset(attrs={3: 1}), "attribute 3 .*Rename"),
    "variable with /": (xr.Dataset({"teacher/student": 1}), "'teacher/student'.*Rename"),
    "dimension with /": (xr.Dataset({"a": ("x/y", [1])}), "'x/y'.*Rename"),
    "variable that is a number": (xr.Dataset({3: 1}), "dimension 3.*Rename"),
    "MultiIndex": (
        xr.Dataset({"a": (("x", "y"), np.ones((2, 2)))}, {"x": [1, 2], "y": [1, 2]}).stack(run=("x", "y")),
        "'run' is part of a MultiIndex.*reset_index",
    ),
    "scale": (xr.Dataset({"E": ("x", [1.0], {"scale_factor": 2.0})}), "'scale_factor' of variable 'E'.*Remove it"),
    "fill": (xr.Dataset({"E": ("x", [1], {"_FillValue": 1})}), "'_FillValue' of variable 'E'.*Remove it"),
    "dates": (xr.Dataset({"t": ("x", [1], {"units": "days since 2000-01-01"})}), "'t' has the units of dates"),
    "complex numbers": (xr.Dataset({"a": ("x", [1j])}), "'a' has type complex128"),
    "objects": (xr.Dataset({"a": ("x", np.array(["b", None], dtype=object))}), "'a' has type object"),
    "null character": (xr.Dataset({"a": ("x", ["b\0c"])}), "Cannot write"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_cannot_be_stored_is_named(tmp_path, name):
    dataset, said = STRANGE[name]
    with pytest.raises(ParameterError, match=said) as caught:
        bd.save(dataset, tmp_path / "x.nc")
    assert len(str(caught.value)) < 1000
    if name != "variable with /":  # which a tree cannot have
        with pytest.raises(ParameterError, match=said):
            bd.save(xr.DataTree.from_dict({"posterior": dataset}), tmp_path / "x.nc")
    assert list(tmp_path.iterdir()) == []
