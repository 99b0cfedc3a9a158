"""The page on limited data has the numbers of the study, and its law follows the formulas of the rule."""

from __future__ import annotations

import re
from pathlib import Path

import limited_data as study
import numpy as np
import pandas as pd
import pytest

PAGE = Path(__file__).parents[2] / "how-to" / "limited-data.md"


def test_one_epoch_of_enough_data_is_the_law_itself():
    runs = pd.DataFrame({"params": [1e8], "tokens": [1e10], "unique_tokens": [1e12], "loss": [3.0]})
    x = np.array(study.START)
    np.testing.assert_allclose(study.predicted(runs, x), study.predicted(runs, x, rule=False))
    assert study.predicted(runs.assign(unique_tokens=1e8), x) > study.predicted(runs, x)


@pytest.mark.slow
def test_the_page_has_the_errors_of_the_study(capsys):
    study.main([])
    printed = re.findall(
        r"\| (without a rule|published constants) \| ([\w. ]+) \| (\d+) \| ([\d.]+) \|", capsys.readouterr().out
    )
    errors = {(law, epochs): float(rmse) for law, epochs, _, rmse in printed}
    rows = re.findall(r"^\| ([\w. ]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE.read_text(), re.M)
    assert len(rows) == 5
    for epochs, _, without, published in rows:
        assert errors["without a rule", epochs] == pytest.approx(float(without), abs=0.003)
        assert errors["published constants", epochs] == pytest.approx(float(published), abs=0.003)
