"""The wheel carries the data: installed elsewhere, `load_runs` works without the checkout. Only the sdist carries the studies."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


STUDIES = {path.name for path in (ROOT / "docs" / "studies").glob("*.py")}


def build(kind: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = (path for path in folder.iterdir() if path.is_file())
    return found


def test_sdist_ships_the_studies(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {Path(name).parts[1:] for name in archive.getnames()}
    assert STUDIES
    assert {("docs", "studies", name) for name in STUDIES} <= names


def test_wheel_ships_the_runs_with_their_provenance(tmp_path: Path) -> None:
    wheel = build("wheel", tmp_path)
    elsewhere = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(elsewhere)
        folders = [Path(name).parts for name in archive.namelist()]
    assert {parts[0].split("-")[0] for parts in folders} == {"bayesdistill"}
    assert not [parts for parts in folders if "studies" in parts]
    code = "import bayesdistill as bd; print(len(bd.load_runs('busbridge2025'))); print(bd.__file__); bd.cite(), bd.table_text, bd.LAWS"
    # -P: the current folder is not searched; PYTHONPATH comes before the editable install.
    found = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(elsewhere), "PATH": ""},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert found[0] == "354"
    assert Path(found[1]).is_relative_to(elsewhere)
    data = elsewhere / "bayesdistill" / "data" / "busbridge2025"
    assert (data / "distilled.csv").read_bytes() == (ROOT / "data" / "busbridge2025" / "distilled.csv").read_bytes()
    assert "arXiv:2502.08606" in (data / "README.md").read_text()
