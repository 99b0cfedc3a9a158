"""Every study is listed on its page, explains itself, and runs in its smallest setting."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
ROOT = FOLDER.parents[1]
STUDIES = sorted(path.stem for path in FOLDER.glob("*.py") if "def main(" in path.read_text())
WITH_FOLDER = ("choice_of_model", "tiny_backtest", "tiny_replay", "transfer")


def test_the_page_lists_every_study_and_no_other():
    listed = re.findall(r"docs/studies/(\w+)\.py", (FOLDER / "index.md").read_text())
    assert sorted(set(listed)) == STUDIES


def test_pages_name_commands_that_exist():
    for page in (ROOT / "docs").rglob("*.md"):
        for path in re.findall(r"python (docs/[\w/]+\.py)", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(name).main(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert f"python docs/studies/{name}.py" in shown
    assert "--quick" in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_runs_in_its_smallest_setting(name, tmp_path):
    folder = [str(tmp_path)] if name in WITH_FOLDER else []
    command = [sys.executable, str(FOLDER / f"{name}.py"), "--quick", *folder]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout
