"""The model card: the report's numbers, nothing else, and lines that ask for what no tool can know."""

from __future__ import annotations

import re
from typing import Any

from distill.report.card import render

ASKED = "**To be filled in by you:**"


def test_figures_limits_and_licences_of_the_report(report: dict[str, Any]) -> None:
    card = render(report)
    for said in (
        "# trashnet",
        "- Classes: cardboard, glass, metal, paper, plastic, trash.",
        "- File: `student.int8.tflite`, SHA-256 `" + "ab" * 32 + "`.",
        "of a photo that is no square the whole, out of shape",
        "| labelled, to learn from | 350 |",
        "mobilenetv2\\_100, 192 px. Licence of its weights, as their card states it: apache-2.0.",
        "- The audit found 1 error, 0 warnings, 1 note: Labelled images in two splits (2).",
        "| tflite-int8 | 0.56 | 69.8 % (65.3 to 74.3) | 0.2 (\N{MINUS SIGN}0.5 to 1.0) | 1.24 |",
        "- Holds: accuracy on the test images: 0.6976, at least 0.65.",
        "- This is a demonstration: 410 test images leave intervals of nine points.",
        "- Little is known of the class trash: 14 images in the truth, fewer than 30.",
        "| brightness | 2 | 50.0 % (44.0 to 56.0) | 45.0 % (39.0 to 51.0) | 40.0 % (34.0 to 46.0) |",
        "it gained 6.6 (2.4 to 10.7) points.",
        "- Checks before training: 1 passed, 1 failed, 0 skipped.",
        "| torch | 2.14.1 |",
    ):
        assert said in card
    assert card.count(ASKED) == 3, "what it is for, what it is not for, whose images these are"
    tables = re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE)
    assert len(tables) == 6
    for table in tables:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def test_what_is_not_known_or_not_tested_is_said(report: dict[str, Any]) -> None:
    report.update(dict.fromkeys(("model", "phone", "perturbation", "audit", "sanity", "gain")), gates=[])
    card = render(report)
    for said in (
        "No int8 file passed its proof",
        "as their card states it: not known, **to be filled in by you**.",
        "Not audited",
        "None were made.",
        "Photos worse than the test set's (blur, noise, light, JPEG) were not tested.",
        "No phone was asked for times.",
    ):
        assert said in card
    assert "None " not in card.replace("None were", "")


def test_groups_and_a_promise_that_does_not_hold(report: dict[str, Any]) -> None:
    score = {"value": 0.6, "low": 0.5, "high": 0.7}
    row = {"name": "light=night", "images": 12, "small": True, "scores": [score], "drop": None}
    report["groups"] = {"predictors": ["tflite-int8"], "rows": [row]}
    detail = "at the lower end of the 95 % interval, n = 12"
    gate = {"name": "accuracy on light=night", "limit": 0.9, "found": 0.5, "holds": False}
    report["gates"] = [{**gate, "relation": "at least", "detail": detail}]
    card = render(report)
    assert "| light=night, few images | 12 | 60.0 % (50.0 to 70.0) |" in card
    assert f"- **Does not hold**: accuracy on light=night: 0.5, at least 0.9, {detail}." in card
    assert "- Little is known of the group light=night: 12 images, fewer than 30." in card


def test_segmentation_in_its_own_figures(segmented: dict[str, Any]) -> None:
    card = render(segmented)
    assert "which of 4 classes each pixel of a photo shows" in card
    assert "| class | share of pixels | IoU | boundary F |" in card
    assert "mIoU" in card and "accuracy on" not in card.partition("## Promises")[2].partition("## Limits")[0]


def test_hostile_names_stay_text(report: dict[str, Any]) -> None:
    plain = render(report).count("\n")
    for name in ("<img src=x onerror=alert(1)>", "a|b", "**x**\n# y", "[a](javascript:b)", "`x`\x1b"):
        report["run"] = report["classes"][0] = report["rows"][3]["name"] = report["model"]["file"] = name
        report["environment"]["cpu"] = report["notes"][0] = name
        card = render(report)
        assert card.count("\n") == plain
        assert "\x1b" not in card
        outside = re.sub(r"`[^`\n]*`", "", card)  # inside of code nothing is markup
        for mark in ("<img", "**x", "[a]", "\n# y"):
            assert not re.search(rf"(?<!\\){re.escape(mark)}", outside)
        for table in re.findall(r"(?:^\|.*\n)+", card, flags=re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
