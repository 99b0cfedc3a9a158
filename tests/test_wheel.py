"""The wheel carries the data: installed elsewhere, `load_runs` works without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_wheel_ships_the_runs_with_their_provenance(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    elsewhere = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(elsewhere)
    code = "import bayesdistill as bd; print(len(bd.load_runs('busbridge2025'))); print(bd.__file__)"
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
