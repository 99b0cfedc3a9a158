"""Pages, docstrings, comments and messages use the terms of the field: discouraged_terms.csv lists what they must not contain."""

from __future__ import annotations

import csv
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".toml", ".csv", ".j2"}
GENERATED = {"_build", "generated", "tutorial", "work"}
QUOTES = "`'\"._"  # a term after one of them is a value, a name or code


def discouraged() -> list[dict[str, str]]:
    with open(Path(__file__).with_name("discouraged_terms.csv"), newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@functools.cache
def texts() -> dict[str, str]:
    """Path -> text in lower case and on one line, without the marks of comments."""
    files = [Path("README.md"), Path("ARCHITECTURE.md"), Path("CHANGELOG.md")]
    for folder in ("bayesdistill", "docs", "data"):
        files += [path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    kept = [path for path in files if not GENERATED & {*path.parts}]
    return {str(path): one_line((ROOT / path).read_text(encoding="utf-8")) for path in kept}


def one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*(?:#\s)?\s*", " ", text).lower()


def found(pattern: str, text: str) -> list[str]:
    """Return the places of a pattern that start a word, with the words around them."""
    # A pattern that starts with a literal is found ten times faster than one that starts with \b.
    hits = [hit.span() for hit in re.finditer(pattern, text)]
    return [
        text[max(a - 40, 0) : b + 30] for a, b in hits if a == 0 or not (text[a - 1].isalnum() or text[a - 1] in QUOTES)
    ]


@pytest.mark.parametrize("row", discouraged(), ids=lambda row: row["pattern"])
def test_texts_have_no_discouraged_term(row):
    allowed = row["allowed_in"].split()
    hits = {name: found(row["pattern"], text) for name, text in texts().items()}
    hits = {name: places for name, places in hits.items() if places}
    unused = [one for one in allowed if not any(name.startswith(one) for name in hits)]
    assert not unused, f"{row['pattern']} is not in {unused}: remove the exception"
    wrong = {name: places for name, places in hits.items() if not name.startswith(tuple(allowed))}
    assert not wrong, f"use: {row['better']}"


def test_terms_are_found():
    rows = {row["pattern"]: row["better"] for row in discouraged()}
    assert len(rows) == len(discouraged())
    assert all(rows.values())
    text = one_line(
        'The loss is that\n    # of a teacher. A Dearer run, ax.scatter(x), `scatter` and "scatter"; it scatters.'
    )
    assert {pattern: len(found(pattern, text)) for pattern in rows if found(pattern, text)} == {
        r"that of\b": 1,
        r"dear(er|est)?\b": 1,
        r"scatter(s|ed|ing)?\b(?!\()": 1,
    }
