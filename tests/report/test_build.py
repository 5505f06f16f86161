"""What `report.json` is gathered from."""

from __future__ import annotations

from typing import Any

import pytest

from distill.report.build import _trainings


@pytest.mark.parametrize(
    ("fit", "baseline", "names"),
    [
        (None, {"training": {}}, {"student", "baseline"}),
        ({"epochs": 3}, {"training": {}}, {"teacher", "student", "baseline"}),
        ({"members": {"member-1": {}}}, {"absent": "no control"}, {"teacher member-1", "student"}),
    ],
)
def test_only_trainings_that_count_are_drawn(fit: Any, baseline: dict[str, Any], names: set[str]) -> None:
    assert _trainings({"teacher": {"fit": fit}, "student": {"training": {}}, "baseline": baseline}) == names
