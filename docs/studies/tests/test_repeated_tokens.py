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
    pattern = r"\| (without a rule|published constants) \| ([^|]+) \| (\d+) \| ([\d.]+) \| [\d.]+ \| ([-+\d.]+) \|"
    printed = re.findall(pattern, capsys.readouterr().out)
    errors = {(law, epochs): (int(count), float(rmse), float(bias)) for law, epochs, count, rmse, bias in printed}
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([-+\d.]+) \|$", PAGE.read_text(), re.M)
    assert len(rows) == 6
    for epochs, count, without, published, bias in rows:
        assert errors["without a rule", epochs][0] == int(count)
        assert errors["without a rule", epochs][1] == pytest.approx(float(without), abs=0.003)
        assert errors["published constants", epochs][1:] == pytest.approx((float(published), float(bias)), abs=0.003)
