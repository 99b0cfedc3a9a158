"""Bars of progress: where somebody looks, only for what takes a while, and gone when the work is done."""

from __future__ import annotations

import time

import nbformat
import pytest
from nbclient import NotebookClient

from bayesdistill import progress


def work(how, pieces=3, pause=0.0):
    with progress.reporting(how, pieces, "simulations") as report:
        report(0, pieces)
        for i in range(pieces):
            time.sleep(pause)  # a bar is drawn ten times a second at most
            report(i + 1, pieces)


def test_a_bar_where_somebody_looks(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)
    work(None)
    assert capsys.readouterr() == ("", "")  # no terminal, no notebook
    work(True, pause=0.11)
    text = capsys.readouterr().err
    assert "simulations" in text
    assert "1/3" in text
    assert text.split("\r")[-1].strip() == ""  # nothing stays behind
    monkeypatch.setattr(progress, "watched", lambda: True)
    work(None, pause=0.11)
    assert "1/3" in capsys.readouterr().err
    work(False)
    work(None, pieces=1)
    assert capsys.readouterr() == ("", "")


def test_what_is_done_at_once_draws_no_bar(capsys):
    work(True)
    assert "simulations" not in capsys.readouterr().err


def test_a_callable_hears_of_every_piece():
    heard = []
    work(lambda done, of: heard.append((done, of)), 2)
    assert heard == [(0, 2), (1, 2), (2, 2)]


def test_an_interrupt_ends_the_bar(capsys, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0)

    def interrupted():
        with progress.reporting(True, 3, "simulations") as report:
            report(1, 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err.split("\r")[-1].strip() == ""


@pytest.mark.slow
def test_the_bar_in_a_notebook_is_plain_text_without_warnings():
    source = """
import time, warnings
from bayesdistill import progress
progress.DELAY = 0
assert progress.watched()
with warnings.catch_warnings():
    warnings.simplefilter("error")
    with progress.reporting(None, 3, "simulations") as report:
        for i in range(3):
            time.sleep(0.11)
            report(i + 1, 3)
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    seen = []
    update = client._update_display_id
    client._update_display_id = lambda name, message: (seen.append(message["content"]["data"]), update(name, message))
    client.execute()
    assert any("simulations" in data["text/plain"] and "1/3" in data["text/plain"] for data in seen)
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data == {"text/plain": "", "text/html": ""}  # nothing stays behind
