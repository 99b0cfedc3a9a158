"""Files of fits and answers: what is stored comes back, and what is damaged or points elsewhere is rejected."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import changed_files
import figure_inputs
import h5py
import numpy as np
import pytest
import test_decisions_every_function as questions
import xarray as xr
from decision_cases import posterior_of, scattered
from test_cli import run

import bayesdistill as bd
from bayesdistill import reporting
from bayesdistill.answers import Answer
from bayesdistill.errors import DigestWarning, FileError, ParameterError
from bayesdistill.sampling import contents, digests, structure


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
    with h5py.File(saved, "r"):
        assert bd.load(saved)["E"].item() == 1.22
    with h5py.File(saved, "r+") as file:  # cuts what follows its content
        file["E"].attrs["units"] = "bits"
        file.flush()
        rejected(saved, "is open for writing in another program")
    rejected(saved, "changed by another program")


def test_the_command_line_rejects_the_same_files(tmp_path, monkeypatch, capsys, saved):
    bd.save(xr.Dataset({"a": 1}), tmp_path / "other.nc")
    (tmp_path / "cut.nc").write_bytes(saved.read_bytes()[:5000])
    os.mkfifo(tmp_path / "fifo.nc")
    for name, said in (("cut.nc", "damaged"), ("fifo.nc", "not a regular file"), ("missing.nc", "does not exist")):
        path = str(tmp_path / name)
        for words in (
            ["plan", path, "--student", "1B", "--budgets", "1e20"],
            ["report", str(saved), "--plan", path],
            ["fit", "busbridge2025", "--prior", path, "-o", str(tmp_path / "fit.nc")],
        ):
            code, _, err = run(monkeypatch, capsys, *words)
            assert code == 2, words
            assert said in err
            assert "Traceback" not in err
            assert len(err) < 1000


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


# Structure and content under a valid digest ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit() -> xr.DataTree:
    return changed_files.small_fit()


@pytest.fixture(scope="module")
def plan(fit) -> xr.Dataset:
    return changed_files.small_plan(fit)


@pytest.fixture(scope="module")
def wholes(fit, plan, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("saved")
    results = {"fit.nc": fit, "plan.nc": plan}
    return {name: bd.save(result, folder / name).read_bytes() for name, result in results.items()}


def alter(path: Path, whole: bytes, change) -> Path:
    """Write a file whose content is changed, with the digest of the changed content."""
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        change(file)
    path.write_bytes(digests.with_digest(path.read_bytes()))
    return path


def replaced(file: h5py.File, name: str, **settings) -> h5py.Dataset:
    """The dataset of this name made anew, with the attributes of the earlier one that do not point elsewhere."""
    kept = {key: value for key, value in file[name].attrs.items() if key not in ("DIMENSION_LIST", "REFERENCE_LIST")}
    scales = [scale[0] for scale in file[name].dims]
    settings = {"data": file[name][...]} | settings if "shape" not in settings else settings
    del file[name]
    made = file.create_dataset(name, **settings)
    made.attrs.update(kept)
    for axis, scale in zip(made.dims, scales, strict=False):
        axis.attach_scale(scale)
    return made


def external(file: h5py.File) -> None:
    size = file["constant_data/student"].shape
    replaced(file, "constant_data/student", shape=size, dtype="S20", external=[("secret.txt", 0, size[0] * 20)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=file["posterior/E"].shape, dtype="f8")
    layout[...] = h5py.VirtualSource("secret.h5", "E", shape=layout.shape)
    del file["posterior/E"]
    file.create_virtual_dataset("posterior/E", layout)


def link(name: str, to) -> object:
    def change(file: h5py.File) -> None:
        file.pop(name, None)
        file[name] = to(file) if callable(to) else to

    return change


def stored_type(file: h5py.File) -> None:
    file["posterior/type"] = np.dtype("f8")


def of_stored_type(file: h5py.File) -> None:
    stored_type(file)
    replaced(file, "posterior/E", dtype=file["posterior/type"])
    del file["posterior/type"]


def declares(name: str, size: int) -> object:
    return lambda file: replaced(file, name, shape=(size,), dtype="f8", chunks=(1000,))


def attribute(name: str, value, of: str = "/") -> object:
    return lambda file: file[of].attrs.__setitem__(name, value)


E = "posterior/E"
STRUCTURES = {
    "external storage": (external, "stored in another file"),
    "virtual dataset": (virtual, "stored in another file"),
    "external link": (link(E, h5py.ExternalLink("secret.h5", "/E")), "is a link"),
    "external link to a group": (link("posterior", h5py.ExternalLink("secret.h5", "/")), "is a link"),
    "soft link": (link(E, h5py.SoftLink("/posterior/A")), "is a link"),
    "link to nowhere": (link(E, h5py.SoftLink("/nowhere")), "is a link"),
    "cycle": (link("posterior/again", lambda file: file["/"]), "linked twice"),
    "second link": (link("posterior/again", lambda file: file[E]), "linked twice"),
    "stored type": (stored_type, "is a stored type"),
    "of a stored type": (of_stored_type, "has a type"),
    "compression": (lambda file: replaced(file, E, compression="gzip"), "filter"),
    "LZF": (lambda file: replaced(file, E, compression="lzf"), "filter"),
    "complex": (lambda file: replaced(file, E, data=file[E][...] * 1j), "has a type"),
    "half precision": (lambda file: replaced(file, E, dtype="f2"), "has a type"),
    "enumeration": (lambda file: replaced(file, E, data=file[E][...] > 1), "has a type"),
    "references": (lambda file: replaced(file, E, data=file.ref, dtype=h5py.ref_dtype), "has a type"),
    "opaque": (lambda file: replaced(file, E, data=np.void(b"pickle")), "has a type"),
    "sequences": (lambda file: replaced(file, E, shape=(2,), dtype=h5py.vlen_dtype("f8")), "has a type"),
    "a dataset beyond the file": (declares("observed_data/student_loss", 10**12), "more values than the file"),
    "chunks beyond the file": (
        lambda file: replaced(file, E, shape=(2, 30), maxshape=(None, None), dtype="f8", chunks=(10**5, 10**3)),
        "chunks that are larger",
    ),
    "attribute of references": (attribute("law", h5py.Empty(h5py.ref_dtype), "posterior"), "has a type"),
    "dimension list": (attribute("DIMENSION_LIST", 3, E), "does not name dimensions"),
    "many objects": (lambda file: [file.create_group(f"g{i}") for i in range(50)], "too many objects"),
    "many groups": (lambda file: [file.create_group(f"g{i}") for i in range(200)], "more than 200 groups"),
    "many levels": (lambda file: file.create_group("/".join("g" * 12)), "10 levels"),
    "name": (lambda file: file.__setitem__(b"posterior/\x80", 3.0), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_other_structures_are_rejected_before_they_are_read(tmp_path, monkeypatch, wholes, name):
    monkeypatch.chdir(tmp_path)
    if name == "many objects":
        monkeypatch.setattr(structure, "_MOST_OBJECTS", 60)
    Path("secret.txt").write_text("do not read this. " * 4000)
    with h5py.File("secret.h5", "w") as file:
        file["E"] = np.full((2, 30), 1.5)
    change, said = STRUCTURES[name]
    rejected(alter(tmp_path / "x.nc", wholes["fit.nc"], change), said)


def relabel(name: str, order) -> object:
    """Attach other scales to the axes of a dataset."""

    def change(file: h5py.File) -> None:
        scales = [axis[0] for axis in file[name].dims]
        file[name].attrs.pop("_Netcdf4Coordinates", None)
        for axis, scale in zip(file[name].dims, scales, strict=True):
            axis.detach_scale(scale)
        for axis, k in zip(file[name].dims, order, strict=True):
            axis.attach_scale(scales[k] if isinstance(k, int) else file[k])

    return change


def swapped(file: h5py.File) -> None:
    scales = [axis[0] for axis in file[E].dims]
    made = file.create_dataset("posterior/new", data=file[E][...].T)
    del file[E]
    file.move("posterior/new", E)
    for axis, scale in zip(made.dims, scales[::-1], strict=True):
        axis.attach_scale(scale)


def value(name: str, at, to) -> object:
    return lambda file: file[name].__setitem__(at, to)


PROVENANCE = "bayesdistill_provenance"
CONTENTS = {
    "scale": ("fit.nc", attribute("scale_factor", 2.0, E), "'scale_factor' of variable 'E'"),
    "offset": ("fit.nc", attribute("add_offset", 0.5, E), "'add_offset' of variable 'E'"),
    "fill value": ("fit.nc", attribute("_FillValue", 1.22, E), "'_FillValue' of variable 'E'"),
    "missing value": ("plan.nc", attribute("missing_value", 0.0, "probability"), "'missing_value'"),
    "dates": ("plan.nc", attribute("units", "days since 2000-01-01", "probability"), "Cannot read|damaged"),
    "format": ("fit.nc", attribute("bayesdistill_format", np.array([1, 1])), "has format"),
    "infinite": ("fit.nc", value(E, (0, 3), np.inf), "posterior/E' is not finite"),
    "NaN": ("fit.nc", value("posterior/effect_student_configuration", (0, 3, 1), np.nan), "is not finite"),
    "no size": ("fit.nc", value("constant_data/student_params", 3, 0.0), "student_params' is not positive"),
    "no group": ("fit.nc", value("constant_data/configuration_of_run", 3, -1), "index outside its groups"),
    "other group": ("fit.nc", value("constant_data/configuration_of_run", 3, 38), "index outside the groups"),
    "scalar": ("fit.nc", lambda file: replaced(file, E, data=1.2), r"posterior/E' has the dimensions \(none\)"),
    "text": ("fit.nc", lambda file: replaced(file, E, data=np.full((2, 30), "1.2", dtype="S3")), "has the type"),
    "swapped axes": ("fit.nc", swapped, "'posterior/E' has the dimensions draw chain instead of chain draw"),
    "sizes that differ": ("fit.nc", relabel(E, (1, 0)), "damaged"),
    "no draws of E": ("fit.nc", lambda file: file.pop(E), "has no E, which the law"),
    "coordinate twice": ("fit.nc", value("posterior/chain", 1, 0), "'chain' has missing or repeated values"),
    "coordinate missing": ("plan.nc", value("budget", 1, np.nan), "'budget' has missing or repeated values"),
    "infinite coordinate": ("plan.nc", value("student", 0, np.inf), "'student' is not finite"),
    "law": ("fit.nc", attribute("law", "[" * 5000, "posterior"), "Cannot read the law"),
    "law of numbers": ("fit.nc", attribute("law", 3, "posterior"), "'law' of the posterior"),
    "name of the law": ("fit.nc", lambda file: rename_law(file), "name and reference must be text"),
    "reference": ("fit.nc", attribute("reference", '{"params": 1e9}', "posterior"), "'reference' .*tokens.*required"),
    "reference of 0": (
        "fit.nc", attribute("reference", '{"params": 0, "tokens": 1, "teacher_loss": 2}', "posterior"), "greater than 0"
    ),
    "dimension of a probability": ("plan.nc", lambda file: replaced(file, "probability", data=0.5), r"'probability' has .*\(none\)"),
    "axes of a probability": ("plan.nc", relabel("probability", ("student", "scenario", "student")), "damaged"),
    "name of an axis": ("plan.nc", lambda file: file.move("thinned_draw", "other"), "has the dimensions"),
    "type of a probability": (
        "plan.nc", lambda file: replaced(file, "probability", data=file["probability"][...].astype("S4")), "has the type"
    ),
    "code": ("plan.nc", value("status", (0, 0, 0), 99), "'status' has values without a meaning"),
    "meanings": ("plan.nc", attribute("flag_meanings", 3, "status"), "'flag_meanings' of variable 'status'"),
    "number": ("plan.nc", attribute("max_student_tokens", "many"), "'max_student_tokens'.*valid number"),
}  # fmt: skip


def rename_law(file: h5py.File) -> None:
    law = json.loads(file["posterior"].attrs["law"])
    file["posterior"].attrs["law"] = json.dumps(law | {"name": 3})


@pytest.mark.parametrize("name", CONTENTS)
def test_other_content_is_rejected(tmp_path, wholes, name):
    which, change, said = CONTENTS[name]
    rejected(alter(tmp_path / "x.nc", wholes[which], change), said)


def test_a_change_that_is_allowed_is_read(tmp_path, wholes, fit):
    """The other tests would pass as well if every altered file were rejected."""
    path = alter(tmp_path / "x.nc", wholes["fit.nc"], attribute("units", "nats", E))
    loaded = bd.load(path)
    assert loaded["posterior"]["E"].attrs["units"] == "nats"
    xr.testing.assert_equal(loaded, fit)


TEXTS = [
    "null",
    "3",
    "{",
    "",
    "9" * 5000,
    "[" * 5000,
    '{"a":' * 5000,
    '"text"',
    "[1]",
    "\x80",
    "yes please",
    np.array([1, 2]),
    None,
]
ATTRIBUTES = {
    PROVENANCE: ['{"versions": null}', '{"data": null}', '{"data": {"distilled": {}}}', '{"priors": null}', '{"settings": 3}',
                 '{"seed": {"a": 1}}', '{"sampler": null}', '{"asymptotic_width": "x"}', '{"reference": {}}', '{"started": 3}', 3],
    "posterior_provenance": ['{"versions": {"numpy": 2}}', 1.5],
    "convergence": ['{"failed": [1]}', '{"failed": 3}', '{"converged": "no"}'],
    "prior_dominated": ["{}", 3],
    "seen_ranges": ['{"student_params": [1]}', '{"student_params": [1, "2"]}', "[]"],
    "converged": [1],
    "aspect_ratio": [np.nan, -1.0, 0, True],
}  # fmt: skip


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_another_shape_are_named(fit, plan, name):
    result = xr.DataTree(plan.assign_attrs({contents.ANSWER_ATTRIBUTE: 1})) if name in plan.attrs else fit.copy()
    contents.check_contents(result)
    for text in [*TEXTS, *ATTRIBUTES[name]]:
        result.attrs[name] = text
        with pytest.raises(structure.ContentError, match=f"attribute '{name}' of the result is invalid") as caught:
            contents.check_contents(result)
        assert len(str(caught.value)) < 500


def test_no_error_is_long(tmp_path, wholes):
    for name, text in (
        (PROVENANCE, '{"versions": {"' + "x" * 10**6 + '": 3}}'),
        (PROVENANCE, "x" * 10**6),
        ("bayesdistill_format", "y" * 10**6),
    ):
        rejected(alter(tmp_path / "x.nc", wholes["fit.nc"], attribute(name, text)), "Cannot read")
    law = json.dumps({"terms": ["z" * 10**6], "effects": [], "noise": "constant"})
    rejected(alter(tmp_path / "x.nc", wholes["fit.nc"], attribute("law", law, "posterior")), "Cannot read")


def test_text_from_files_is_escaped_in_pages(tmp_path, monkeypatch, fit, plan):
    monkeypatch.setattr(reporting.content, "figures_of", lambda *_: {})  # which take long
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    hostile = fit.copy(deep=True)
    for name in ("student", "teacher"):
        hostile["constant_data"][name][:] = evil
    origin = bd.provenance(fit) | {"versions": {evil: evil}, "sampler": evil, "priors": {evil: evil}, "started": evil}
    origin["data"]["distilled"] |= {"source": evil, "sha256": evil}
    hostile.attrs[PROVENANCE] = json.dumps(origin)
    hostile["posterior"].attrs["law"] = json.dumps(
        json.loads(fit["posterior"].attrs["law"]) | {"name": evil, "reference": evil}
    )
    hostile["prior_table"]["reason"][:] = evil
    asked = changed_files.small_plan(hostile).assign_coords(scenario=[evil, *plan["scenario"].values[1:]])
    asked.attrs["supervised_range"] = evil
    loaded, asked = (bd.load(bd.save(x, tmp_path / "x.nc")) for x in (hostile, asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bd.ConvergenceWarning)
        page = bd.report(loaded, asked, folder=tmp_path / "report").read_text()
        bd.interactive_page(loaded, tmp_path / "page.html", draws=20, allow_unconverged=True)
    assert "&lt;script&gt;alert(1)" in page
    for text in (page, (tmp_path / "page.html").read_text(), asked._repr_html_()):
        assert "<script>alert" not in text
        assert "<img src=x" not in text


# Round trips ----------------------------------------------------------------------------------------------------------


def results(fit: xr.DataTree, plan: xr.Dataset) -> Iterator[tuple[str, xr.Dataset | xr.DataTree]]:
    """Results of all functions, as far as they are fast."""
    draws = posterior_of(scattered(8) | {"sigma": np.full(8, 0.01), "nu": np.full(8, 5.0)}, 2)
    yield from {
        "fit": fit,
        "draws": draws,
        "plan": plan,
        "a student": plan.isel(student=0),
        "part": plan[["probability"]],
    }.items()
    yield "transposed", plan.transpose("budget", "student", ...)
    yield "no scenario", plan.isel(scenario=0, drop=True)
    yield "renamed", plan[["best_distilled_loss"]].rename(thinned_draw="draw")
    yield "both", xr.concat([plan, plan], "fit")
    for name, function in (questions.ASKED | questions.OTHERS).items():
        yield name, function(draws, [1e9, 2e9], [1e20, 1e22])
    small = bd.plan(draws, "1B", [1e20, 1e22], "best case")
    yield "plan_value", bd.plan_value(draws, small, gpu_flops_per_second=4e14, price_per_gpu_hour=2)
    yield "evppi", bd.evppi(draws, small)
    yield "capacity_gap", bd.capacity_gap(draws, "1B", student_tokens=1e10, teacher_losses=[2.0, 2.4])
    yield (
        "gap of sizes",
        bd.capacity_gap(draws, "1B", student_tokens=1e10, teacher_params=[1e9, 1e10], teacher_budget=1e21),
    )
    yield "compare_crossovers", bd.compare_crossovers({"a": draws, "b": draws}, "1B", "best case", budgets=[1e20, 1e24])
    yield "information_order", bd.information_order(draws, questions.RUNS)
    labels = questions.RUNS.assign(student="a", teacher="b", budget="c", probability=0.5)  # names that decisions use
    yield "predict", bd.predict(draws, labels)
    yield "predict runs", bd.predict(draws, labels, noise="run", groups="new", draws=True)
    yield "loo", bd.loo(fit)
    yield "compare_loo", bd.compare_loo({"a": fit, "b": fit})
    yield "compare_fits", bd.compare_fits(fit, draws)
    yield "law_curves", bd.law_curves(fit)
    yield "posterior_predictive", bd.posterior_predictive(fit)
    yield "prior_predictive", bd.prior_predictive(bd.load_runs().iloc[::20], draws=50)
    yield "residual_structure", bd.residual_structure(fit)
    yield "describe_runs", bd.describe_runs(bd.load_runs())
    for name, function in inspect.getmembers(figure_inputs, inspect.isfunction):
        if all(p.default is not p.empty for p in inspect.signature(function).parameters.values()):
            made = function()
            if isinstance(made, xr.Dataset):
                yield f"figure of {name}", made


def same(result: xr.Dataset | xr.DataTree, path: Path) -> None:
    loaded = bd.load(bd.save(result, path))
    xr.testing.assert_identical(loaded, result)
    assert type(loaded) is type(result)
    trees = [x if isinstance(x, xr.DataTree) else xr.DataTree(x) for x in (result, loaded)]
    for before, after in zip(*(tree.subtree for tree in trees), strict=True):
        for variable in before.dataset.variables:
            kinds = [node.dataset[variable].dtype for node in (before, after)]
            assert kinds[0] == kinds[1] or {kind.kind for kind in kinds} <= set("OU"), variable


@pytest.mark.parametrize("name", ["fit", "draws", "plan", "a student"])
def test_fits_and_plans_come_back_as_they_were(tmp_path, fit, plan, name):
    same(next(result for each, result in results(fit, plan) if each == name), tmp_path / "x.nc")


@pytest.mark.slow
def test_results_come_back_as_they_were(tmp_path, fit, plan):
    for _, result in results(fit, plan):
        same(result, tmp_path / "x.nc")


def test_no_result_is_rejected(fit, plan):
    """What is checked when results are saved, without the files, which take longer."""
    found = dict(results(fit, plan))
    for result in found.values():
        tree = xr.DataTree(result) if isinstance(result, xr.Dataset) else result
        mark = {contents.ANSWER_ATTRIBUTE: 1} if isinstance(result, Answer) else {}
        stored = {
            node.path: contents.storable(node.to_dataset(inherit=False).assign_attrs(mark)) for node in tree.subtree
        }
        contents.check_contents(xr.DataTree.from_dict(stored))
    assert len(found) > 45


# Changed bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_changed_file_is_rejected_quickly(wholes, count):
    """`python tests/changed_files.py` tries 10,000 files."""
    contents = changed_files.changed(list(wholes.values()), count, seed=count)
    found = [(change, said) for change, said, _, _ in changed_files.outcomes(contents, wholes["fit.nc"])]
    assert {said for _, said in found} == {"rejected"}
    assert {change for change, _ in found} == {change.__name__.strip("_") for change in changed_files.CHANGES}
