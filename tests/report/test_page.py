"""The page: everything the report says is there, and nothing that a hostile name could add."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from distill.core.task import Metric
from distill.report.masks import draw_masks
from distill.report.page import render
from distill.report.rows import class_scores, file_row, trained_row
from distill.tasks.segmentation import Segmentation

from .conftest import THINGS, answered, photographed, picture

MINUS = "\N{MINUS SIGN}"
PARTS = ("disagreements", "strip", "perturbation", "looking", "audit", "sanity")
HOSTILE = "<img src=http://evil.example/x.png onerror=alert(1)>\"'&{{ 7*7 }}$x^2$_\u202egnp.exe\x1b[31m"


class Page(HTMLParser):
    """Tags with attributes, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._text: list[str] = []
        self._styling = False
        self.feed(html)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._styling = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._styling = False

    def handle_data(self, data: str) -> None:
        if not self._styling:
            self._text.append(data)


def poisoned(value: Any, key: str = "") -> Any:
    """The report with every text that comes from outside replaced."""
    fixed = {"name", "stage", "runtime", "status", "picture", "created_at", "version", "key"}
    if isinstance(value, dict):
        free = {"by_class", "train", "validation", "test", "left_out_by_reason", "environment", "decisions", "student"}
        return {k + HOSTILE if key in free else k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(v, key) for v in value]
    return value + HOSTILE if isinstance(value, str) and key not in fixed else value


@pytest.mark.parametrize("task", ["report", "segmented"])
def test_hostile_text_stays_text(
    task: str, report: dict[str, Any], pictures: dict[str, bytes], request: pytest.FixtureRequest
) -> None:
    report = request.getfixturevalue(task)
    plain = Page(render(report, pictures))
    report = poisoned(report)
    report["rows"][3].update(name=HOSTILE, status="rejected", reason=HOSTILE)
    report["gates"][0]["name"] = HOSTILE
    report["confusion"]["name"] = report["curves"][0]["stage"] = report["stages"][0]["stage"] = HOSTILE
    html = render(report, pictures)
    page = Page(html)
    known = {tag for tag, _ in plain.tags}
    assert {tag for tag, _ in page.tags} == known
    assert "script" not in known
    assert not [(tag, name) for tag, attributes in page.tags for name in attributes if name.startswith("on")]
    assert sum(tag == "img" for tag, _ in page.tags) == len(pictures)
    assert "49" not in re.findall(r"'&(.*?)\$x", page.text), "the name was run as a template"
    assert "\u202e" not in html
    assert "\x1b" not in html


def test_file_names_that_are_no_unicode_can_be_written(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    report["mistakes"][0]["path"] = b"/photos/\xff.jpg".decode("utf-8", "surrogateescape")
    report["classes"][0] = report["rows"][4]["name"] = report["curves"][0]["stage"] = "caf\udce9"
    assert "/photos/\N{REPLACEMENT CHARACTER}.jpg" in render(report, pictures).encode().decode()


def test_class_names_of_any_script_are_drawn(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    names = ["玻璃", "металл", "ورق", "กระดาษ", "_hidden", "$x$"]
    report["classes"] = names
    html = render(report, pictures)
    drawn = html[html.index('id="confusion-') : html.index("</svg>", html.index('id="confusion-'))]
    assert all(drawn.count(name) == 2 for name in names)


def test_nothing_is_loaded(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    html = render(report, pictures)
    page = Page(html)
    loads = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "style"}
    ]
    assert len([load for load in loads if load.startswith("data:image/png;base64,")]) == len(pictures)
    assert not [load for load in loads if "http" in load or "//" in load.partition("base64,")[0]]
    assert not re.search(r"https?:|@import|@font-face", html)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    policy = next(a["content"] or "" for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_links_point_at_something_and_ids_are_unique(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    html = render(report, pictures)
    ids = [a["id"] for _, a in Page(html).tags if "id" in a]
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]+)"', html) + re.findall(r"url\(#([^)]+)\)", html)
    assert targets
    assert set(targets) <= set(ids)


def test_all_rows_with_their_numbers(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    html = render(report, pictures)
    table = html[html.index('<table class="compare">') : html.index("</table>")]
    body = [Page(line).text for line in table[table.index("<tbody>") :].split("<tr")[1:]]
    assert len(body) == len(report["rows"])
    for line, row in zip(body, report["rows"], strict=True):
        assert row["name"] in line
        assert row["detail"] in line
    int8 = next(line for line in body if "tflite-int8" in line)
    assert re.findall(rf"[{MINUS}<]?\d[\d.]*", int8.split("out")[1]) == [
        *("0.56", "69.8", "65.3", "74.3", "0.2", f"{MINUS}0.5", "1.0", "98.3", "1"),
        *("1.24", "1.36", "1.98", "0.77", "0.85", "1.24", "12.3", "61.5", "67.8", "0.0410", "0.40", "410"),
    ]


def test_first_screen_says_what_was_made(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    html = render(report, pictures)
    text = Page(html[: html.index("<nav>")]).text
    for said in (
        "trashnet 2026-11-20 19:41 UTC",
        "tflite-int8 , 0.56 MB, answers 69.8 % of 410 test images right.",
        "All 3 gates hold",
        "holds Accuracy on the test images min_test_accuracy 0.6976 at least 0.65",
        "6.1 % of the teacher's 9.15 MB",
        "+6.6 points student against control; 2.4 to 10.7",
        f"against the float student; {MINUS}0.5 to 1.0, so it may be none",
        "took 21 min 10 s",
        report["notes"][0],
    ):
        assert said.replace("trashnet ", "") in text
    assert 'class="bad"' not in html[: html.index("<nav>")]


def test_failed_gate_is_said_in_red(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    report["gates"][1].update(limit=0.6976, found=0.69759, holds=False)
    report["gates"][2].update(found=None, holds=False)
    html = render(report, pictures)
    assert '<strong class="bad">Gate failed: 2 of 3 do not hold</strong>' in html
    failed = [Page(item).text.strip() for item in re.findall(r'<li class="bad">(.*?)</li>', html)]
    assert failed == [
        "failed Accuracy on the test images min_test_accuracy 0.69759 at least 0.6976",
        "failed Lost from the student to the int8 file max_int8_drop not measured at most 0.01",
    ]
    assert "gates hold" not in html


def test_rejected_file_is_named_with_its_reason(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    report["rows"][5].update(status="rejected", reason="largest difference 0.41, allowed 0.1")
    html = render(report, pictures)
    assert '<strong class="bad">Rejected: tflite-int8</strong> largest difference 0.41, allowed 0.1' in html
    assert '<p class="made"><strong>tflite-float16</strong>' in html
    assert "<strong>tflite-int8 rejected</strong>: largest difference 0.41, allowed 0.1" in html


def test_no_file_passed(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    for row in report["rows"][3:]:
        row.update(status="rejected", reason="it did not open")
    assert '<strong class="bad">No exported file passed its proof.</strong>' in render(report, pictures)


def test_parts_that_may_be_missing(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    for row in report["rows"]:
        row.update(latency=None, partitions=None, agreement=None, max_difference=None, drop=None, details={})
        row.update(score=None, bytes=None, parameters=None)
    report["rows"][1].update(status="absent", reason="baseline: false")
    report.update(
        gain=None, gates=[], confusion=None, curves=[], fed=[], mistakes=[], notes=[], decisions={}, stages=[]
    )
    report["data"].update(left_out=0, left_out_by_reason={})
    report["labels"]["hidden_score"] = None
    report.update(dict.fromkeys(("phone", "model", *PARTS)))
    text = Page(render(report, {})).text
    for said in (
        "No gates were set",
        "there is no control to compare with",
        "not scored",
        "not timed",
        "control absent : baseline: false",
        "Nothing was timed in this run.",
        "No file was scored.",
        "Nothing was trained in this run.",
        "No views were kept.",
        "No mistakes to show.",
        "Every image that was found is used.",
    ):
        assert said in text
    assert "None " not in text.replace("None was left out", "")
    assert "nan" not in text


def test_parts_of_other_commands_in_the_readers_order(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    html = render(report, pictures)
    ids = [a["id"] for tag, a in Page(html).tags if tag in ("section", "h3") and "id" in a]
    assert ids == [
        *("comparison", "phone", "teacher", "student", "strip", "classes", "figures", "perturbation", "fed", "filters"),
        *("mistakes", "disagreements", "data", "audit", "how", "sanity"),
    ]
    text = Page(html).text
    for said in (
        "licence of its weights: apache-2.0",
        "9 kept glass 87 %",
        "Accuracy on 200 test images that were changed",
        "blur 4 50.0 % 44.0 to 56.0 45.0 % 39.0 to 51.0 40.0 % 34.0 to 46.0",
        "conv_stem , 16 x 3 x 3 x 3",
        "truth glass , answer plastic , 98 %",
        "all 270 65.9 %",
        "teacher metal , 61 % student metal , 61 % tflite-int8 glass , 61 %",
        "1 error, 0 warnings, 1 note.",
        "error Labelled images in two splits: 2 No score means anything. same bytes",
        "test, glass 3 of 64 bits differ test/glass/g.jpg",
        "1 passed, 1 failed, 0 skipped.",
        "classes failed six five usual cause: a lost class",
    ):
        assert said in text
    images = [a for tag, a in Page(html).tags if tag == "img"]
    assert len(images) == len(pictures)
    assert all(a["loading"] == "lazy" and a["alt"] for a in images)


def test_what_nobody_asked_for_yet_is_one_line_with_its_command(report: dict[str, Any]) -> None:
    report.update(dict.fromkeys(PARTS))
    text = Page(render(report, {})).text
    for command in ("perturb", "look", "audit", "sanity"):
        assert f"distill {command} 'runs/trash net' , then distill report --run 'runs/trash net'" in text
    report["folder"] = "runs/;rm -rf $HOME"
    assert "distill look 'runs/;rm -rf $HOME'" in Page(render(report, {})).text


def test_groups_stand_with_the_hardest_first_and_few_images_last(
    report: dict[str, Any], pictures: dict[str, bytes]
) -> None:
    def row(name: str, score: float, small: bool) -> dict[str, Any]:
        known = {"value": score, "low": score - 0.1, "high": score + 0.1}
        return {"name": name, "images": 20 if small else 80, "small": small, "scores": [known], "drop": None}

    rows = [row("day", 0.8, False), row("fog", 0.2, True), row("night", 0.6, False)]
    report["groups"] = {"predictors": ["tflite-int8"], "rows": rows}
    html = render(report, pictures)
    table = Page(html[html.index('<section id="groups">') :].partition("</table>")[0]).text
    assert re.findall("night|day|fog", table) == ["night", "day", "fog"]
    assert 'href="#groups"' in html
    report["groups"]["rows"] = [row(f"scene {i}", i / 1000, False) for i in range(1000)]
    report["data"]["left_out_by_reason"] = {f"damaged at byte {i}": 1 for i in range(1000)}
    html = render(report, pictures)
    assert html.count(">scene ") == 200 and "800 more groups are in report.json" in Page(html).text
    assert html.count("damaged at byte") == 50 and "950 rarer reasons are not shown" in html


def test_scores_of_validation_are_not_called_test(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    report.update(split="validation", notes=[], gates=[], perturbation=None)
    text = Page(render(report, pictures)).text
    assert "69.8 % of 410 validation images right" in text
    assert "Validation accuracy 69.8 %" in text
    assert "test images" not in text


def test_rows_as_a_run_writes_them_when_nothing_is_known(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    metric = Metric("accuracy", "accuracy")
    report["rows"][1] = trained_row("control", {"absent": "no labelled images"}, "test", metric)
    rejected = {"name": "tflite-int8", "status": "rejected", "reason": "it crashed"}
    report["rows"][5] = file_row(rejected, [], "test", metric)
    text = Page(render(report, pictures)).text
    assert "control absent : no labelled images" in text
    assert "tflite-int8 rejected : it crashed" in text


def test_scored_but_not_timed_is_a_line_across(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    names = ("teacher", "student", "control")
    for row in report["rows"][:3]:
        row["latency"] = None
    drawn = re.search(r"<svg[^>]*figure latency.*?</svg>", render(report, pictures), flags=re.DOTALL)
    assert drawn is not None
    assert all(f">{name}</text>" in drawn[0] for name in names)


def test_times_of_a_phone_stand_beside_those_of_this_machine(
    report: dict[str, Any], pictures: dict[str, bytes]
) -> None:
    text = Page(render(report, pictures)).text
    assert "On a phone Desk Nobody A1, Android 13, Unisoc T606, 8 cores." in text
    assert "app any 1 31" in text and "throttled: thermal status 2 (moderate)" in text
    assert "not of a phone; those are further down" in text
    assert "On a phone" not in Page(render({**report, "phone": None}, pictures)).text


def test_no_benchmark_still_shows_accuracy(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    for row in report["rows"]:
        row["latency"] = None
    html = render(report, pictures)
    assert 'class="figure latency"' not in html
    assert "69.8 %" in html


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_are_inlined_by_their_bytes(kind: str, report: dict[str, Any]) -> None:
    html = render(report, {"fed-0": picture(0, kind)})
    assert html.count(f'src="data:image/{kind.lower()};base64,') == 1


def test_picture_that_is_missing_or_no_picture_is_said(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    pictures["fed-0"] = b"<svg onload=alert(1)>"
    del pictures["mistake-0"]
    html = render(report, pictures)
    assert html.count("picture missing") == 2
    assert "PHN2Zy" not in html


def test_same_report_gives_same_page_and_no_trace(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    before = dict(mpl.rcParams)
    first = render(report, pictures)
    with mpl.rc_context({"font.size": 31.0, "lines.linewidth": 9.0, "axes.grid": False}):
        assert render(report, pictures) == first
    assert dict(mpl.rcParams) == before


def test_drawings_follow_dark_mode(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    html = render(report, pictures)
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--accent)" in drawn
    assert not re.search(r"#[0-9a-f]{6}\b", drawn), "a colour that dark mode cannot change"
    assert "prefers-color-scheme: dark" in html


def test_many_classes_make_a_page_that_opens(report: dict[str, Any], pictures: dict[str, bytes]) -> None:
    number = 1000
    report["classes"] = [f"class {i}" for i in range(number)]
    report["confusion"]["counts"] = [[int(i == j) for j in range(number)] for i in range(number)]
    assert len(render(report, pictures)) < 2_000_000


def test_masks_with_their_legend_and_scores(segmented: dict[str, Any], pictures: dict[str, bytes]) -> None:
    html = render(segmented, pictures)
    section = html[html.index('<section id="masks">') : html.index('<section id="data">')]
    assert section.count("<img ") == 9 * 5 + 2 * 3 * 4
    assert section.count('<div class="masks">') == 9 + 2 * 3
    titles = [
        "Best",
        "Median",
        "Worst",
        "Where they do not say the same",
        "Teacher and student",
        "Student and tflite-int8",
    ]
    assert re.findall("<h3>(.*?)</h3>", section) == titles
    told = Page(section[section.index('<section id="disagreements">') :]).text
    assert "Of teacher, student, tflite-int8 on 12 test images" in told and "of all pixels differently" in told
    shares = [float(share) for share in re.findall(r"([\d.]+) %", told[: told.index("Of teacher")])]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    for pair in segmented["masks"]["disagreements"]["pairs"]:
        pair["images"] = []  # the photos are gone, what was counted is not
    gone = Page(render(segmented, pictures)).text
    assert "of all pixels differently." in gone and "every pixel alike" not in gone
    legend = Page(section[section.index('<ul class="legend">') : section.index("</ul>")])
    assert legend.text.strip() == "background (left clear) cup plate spoon wrong, in the errors ignored"
    colours = [a["style"] for tag, a in legend.tags if tag == "span" and "style" in a]
    assert len(set(colours)) == len(colours) == 5
    best = Page(section[section.index('<div class="masks">') :][: section.index("</div>")]).text
    assert "teacher 100.0 %" in best and "errors of tflite-int8" in best
    assert 'id="mistakes"' not in html and 'href="#mistakes"' not in html


def test_segmentation_is_spoken_of_in_its_own_metric(segmented: dict[str, Any], pictures: dict[str, bytes]) -> None:
    text = Page(render(segmented, pictures)).text
    for said in (
        "tflite-int8 , 0.56 MB, reaches 69.8 % mIoU on 410 test images.",
        "Test mIoU 69.8 %",
        "mIoU against latency",
        "Validation mIoU",
        "test mIoU, %, with its 95 % interval",
        "share of pixels with the student's answer",
        "the student's mIoU minus this one's",
        "On validation its mIoU is 76.7 % (72.2 to 81.2); pixel accuracy 93.0 %.",
        "Pixel accuracy",
        "Boundary F",
        "masks of 64x64 cells, 2,310 bytes an image",
        "Images in which a class occurs, and its share of all pixels",
        "cup 40 25.0 % 40 25.0 % 40 25.0 %",
    ):
        assert said in text
    assert "accuracy against" not in text.lower() and "Largest difference" not in text and "Macro" not in text


def test_confusion_of_pixels_is_in_percent(segmented: dict[str, Any], pictures: dict[str, bytes]) -> None:
    millions = [[98_700_000, 900_000, 400_000, 0], [0, 0, 0, 0], [30_000, 0, 70_000, 0], [0, 0, 0, 5]]
    segmented["confusion"]["counts"] = millions
    html = render(segmented, pictures)
    drawn = html[html.index('id="confusion-') : html.index("</svg>", html.index('id="confusion-'))]
    assert re.findall(r">(\d+)</text>", drawn) == ["99", "1", "30", "70", "100"]  # 0.4 % is left blank


def test_scores_of_each_class(segmented: dict[str, Any], pictures: dict[str, bytes]) -> None:
    segmented["class_scores"]["rows"][2]["scores"][0][2] = None
    html = render(segmented, pictures)
    table = html[html.index('<section id="classes">') :]
    lines = [Page(line).text.split() for line in table[: table.index("</table>")].split("<tr")[1:]]
    assert lines[0][-3:] == ["IoU", "Boundary", "F"]
    assert lines[1][-6:] == ["teacher", "student", "tflite-int8"] * 2
    assert [line[1] for line in lines[2:]] == list(segmented["classes"])
    shares = [float(line[2]) for line in lines[2:]]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert lines[2][4:6] == ["100.0", "%"]
    assert "\N{EN DASH}" in lines[4]


def test_segmentation_without_teacher_files_or_test_set(
    report: dict[str, Any], segmented: dict[str, Any], pictures: dict[str, bytes], tmp_path: Path
) -> None:
    records = photographed(tmp_path)[:1]
    said = {"student": answered(records, 1)}
    score = Segmentation(THINGS).score(said["student"]).as_dict()
    score["boundary_f_by_class"] = dict.fromkeys(THINGS)  # every boundary is ignored
    for row in segmented["rows"]:
        row["details"]["boundary F"] = None
    segmented.update(
        split="validation",
        rows=[row for row in segmented["rows"] if row["name"] == "student"],
        gates=[],
        gain=None,
        confusion={"name": "student", "counts": score["confusion"]},
        class_scores=class_scores({"student": score}, THINGS),
        masks=draw_masks(records, THINGS, said, "squash", 100, pictures),
    )
    html = render(segmented, pictures)
    section = html[html.index('<section id="masks">') : html.index('<section id="data">')]
    assert section.count("<img ") == 3
    assert "Of the validation images, ranked by the mIoU of student" in Page(section).text
    classes = Page(html[html.index('<section id="classes">') : html.index('<section id="figures">')]).text
    assert "IoU" in classes and "oundary" not in classes
    segmented["masks"]["images"] = []
    assert "No masks to show." in render(segmented, pictures)


def test_the_ways_to_int8_and_the_one_that_was_kept(report: dict[str, Any]) -> None:
    text = Page(render(report, {})).text
    assert "Ways to int8" in text
    assert "1 minimum and maximum 1.34 0.41 1 97.0 % 2.3 1.3 to 3.3 loses more than 0.010 2 ranges searched" in text
    assert "0.4 \N{MINUS SIGN}0.6 to 1.4 keeps what was promised; kept" in text
    assert "loses at most 1.0 points" in text
    report["int8"] = None
    assert "Ways to int8" not in Page(render(report, {})).text
