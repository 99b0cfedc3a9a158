"""Shared code of the studies: command line and Markdown tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import bayesdistill as bd

WITHOUT_DISCREPANCY = bd.LAWS["tied_reducible"].with_discrepancy()
"""The default law without its discrepancy. The tables of most studies were made before the default law had one."""


def parser(doc: str | None, *, folder: bool = False, law: bool = False) -> argparse.ArgumentParser:
    """Return a parser with --quick, described by the docstring of the study.

    With `folder`, the first argument is the folder of the results. With `law`, there is --without-discrepancy (`default_law`).
    """
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--quick", action="store_true", help="run the smallest setting, to check that the study works")
    if law:
        found.add_argument(
            "--without-discrepancy", action="store_true", help="fit the default law without its discrepancy"
        )
    if folder:
        found.add_argument("folder", type=Path, help="folder of the results; an interrupted study resumes from it")
    return found


def default_law(given: argparse.Namespace) -> bd.Law:
    """Return the default law, or the one without its discrepancy if that was asked for."""
    return WITHOUT_DISCREPANCY if given.without_discrepancy else bd.LAWS["tied_reducible"]


def row(*cells: object) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    return "\n".join([row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows)])
