"""Table of all symbols of the laws for the page of terms, from the descriptions in the package."""

from __future__ import annotations

from collections.abc import Iterator

from bayesdistill.law import DISCREPANCIES, EFFECTS, RESIDUAL_NOISE, TERMS, Parameter
from bayesdistill.law.residual import NU, SIGMA, SIGMA_SUPERVISED


def parameters() -> Iterator[tuple[str, Parameter]]:
    """Yield all symbols, each with what it does."""
    for term in TERMS.values():
        yield from ((parameter.sentence, parameter) for parameter in term.parameters)
    for effect in EFFECTS.values():
        yield effect.sentence, effect.scale
    yield from ((parameter.sentence, parameter) for parameter in (SIGMA, SIGMA_SUPERVISED, NU))
    for part in (*RESIDUAL_NOISE.values(), *DISCREPANCIES.values()):
        yield from ((parameter.sentence or part.sentence, parameter) for parameter in part.parameters)


def table() -> str:
    """Return a Markdown table with a row per symbol."""
    rows = ["| symbol | meaning | unit | effect |", "| --- | --- | --- | --- |"]
    for sentence, parameter in parameters():
        unit = "" if parameter.unit == "1" else parameter.unit
        rows.append(f"| `{parameter.name}` | {parameter.long_name} | {unit} | {sentence} |")
    return "\n".join(rows) + "\n"
