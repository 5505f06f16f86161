"""Names beside points."""

from __future__ import annotations

import itertools
import random

from distill.report.point_names import Box, PointName, place

FRAME = Box(40, 40, 430, 330)


def test_names_of_crowded_points_cover_no_other_name_and_stay_inside() -> None:
    random.seed(0)
    for _ in range(10):
        names = [PointName(f"point {i}", random.uniform(120, 350), random.uniform(150, 220), 8.0, "") for i in range(8)]
        boxes = place(names, [(90.0, 15.0)] * 8, FRAME, [])
        assert sum(a.overlap(b) for a, b in itertools.combinations(boxes, 2)) < 1
        assert all(box.area - box.overlap(FRAME) < 1 for box in boxes)


def test_a_lone_point_has_its_name_beside_it_and_a_line_has_it_above_or_below() -> None:
    point, line = PointName("point", 100.0, 100.0, 5.0, ""), PointName("line", None, 200.0, 0.0, "")
    beside, along = place([point, line], [(60.0, 15.0)] * 2, FRAME, [])
    assert 105 < beside.left < 115
    assert beside.bottom < 100 < beside.top
    assert along.bottom == 202 or along.top == 198
