"""The page in headless Chromium: hundreds of images by keyboard, a server that is killed, masks that are drawn on."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from distill.core.run import Run
from distill.data.corrections import read_journal
from distill.data.manifest import Manifest
from distill.data.mask_file import read_mask
from distill.review import command
from distill.review.subject import of_folder, of_run
from tests.review.conftest import NAMES, SHOWN, answer_images, colour_of, opened, read_data, serving, started

pytestmark = pytest.mark.xdist_group("review-browser")

ACKNOWLEDGED = """
window.acknowledged = [];
const real = window.fetch;
window.fetch = async (...request) => {
  const answer = await real(...request);
  if (request[0] === "/answers" && answer.ok) window.acknowledged.push(...(await answer.clone().json()).keys);
  return answer;
};
"""


def test_300_images_by_keyboard_and_none_is_lost_by_a_kill(sorted_run: Callable[..., Run], browser: Any) -> None:
    run = sorted_run(unlabelled=297, labelled=3)
    journal = run.root / "review/journal.jsonl"
    right = {r.id: colour_of(r.path) for r in Manifest.load(run.root / "data/manifest.parquet").of("train")}
    suggested = {id_: item.suggestion for id_, item in of_run(run).items.items()}
    assert len(right) == 300
    assert 90 <= sum(right[id_] != suggested[id_] for id_ in right) <= 100

    def key_of(image: str) -> str:
        """Confirms what is right, corrects what is wrong."""
        name = right[image]
        return "Space" if suggested[image] == name else str(NAMES.index(name) + 1)

    moment = random.uniform(0.2, 1.2)
    print(f"killed after {moment:.3f} s")
    with started(run.root) as (process, url), opened(browser, url, init=ACKNOWLEDGED) as page:
        page.wait_for_selector("body[data-image]:not([data-image=''])")
        pressed = answer_images(page, key_of, lambda: page.evaluate("window.acknowledged.length") == 0)
        threading.Timer(moment, process.kill).start()
        pressed += answer_images(page, key_of, lambda: process.poll() is None)
        page.keyboard.press("u")  # there is always one that nobody can acknowledge
        page.get_by_role("alert").wait_for()
        assert "The server does not answer" in page.get_by_role("alert").inner_text()
        acknowledged = set(page.evaluate("window.acknowledged"))
    assert 0 < len(acknowledged) <= pressed < 300
    said = read_journal(journal)
    assert acknowledged <= {answer.key for answer in said.answers.values()}
    with started(run.root) as (_, url), opened(browser, url) as page:
        page.wait_for_selector("body[data-image]:not([data-image=''])")
        assert page.locator("#counts").inner_text() == f"{len(said.truth())} of 300"
        assert answer_images(page, key_of) == 300 - len(said.truth())
        assert page.locator("#done").inner_text() == "All images are answered."
        page.wait_for_selector("body[data-unsaved='0']")
        assert page.locator("#counts").inner_text() == "300 of 300"
    (person,) = command.summary(of_run(run))["people"]
    print(f"{person['answers_a_minute']:.0f} answers a minute")
    after = read_journal(journal)
    assert {image: answer.label for image, answer in after.truth().items()} == right
    assert acknowledged <= {answer.key for answer in after.answers.values()}
    counts = Manifest.counts(read_data(run.root.parent))
    assert counts["train_labelled"] == 300


def test_undo_arrows_and_skip(sorted_run: Callable[..., Run], browser: Any) -> None:
    run = sorted_run(unlabelled=4, labelled=3)
    subject = of_run(run)
    order = list(subject.items)
    with serving(subject) as server, opened(browser, server.url) as page:
        shown = lambda: page.wait_for_selector("body[data-image]:not([data-image=''])") and page.evaluate(SHOWN)[0]  # noqa: E731
        assert shown() == order[0]
        for key in ("1", "2", "u", "3"):
            before = shown()
            page.keyboard.press(key)
            page.wait_for_function("id => document.body.dataset.image !== id", arg=before)
        page.wait_for_selector("body[data-unsaved='0']")
        assert page.locator("#counts").inner_text() == "3 of 7"
        page.keyboard.press("ArrowLeft")
        assert shown() == order[3]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("z")
        assert shown() == order[3]
        page.keyboard.press("z")
        assert shown() == order[2]
        page.wait_for_selector("body[data-unsaved='0']")
        assert page.locator("#counts").inner_text() == "2 of 7"
        page.reload()
        assert shown() == order[2]  # what was skipped and undone is as if nothing had been said
        page.keyboard.press("z")  # and what was answered before the page was loaded can be undone
        page.wait_for_function("id => document.body.dataset.image === id", arg=order[1])
        page.wait_for_selector("body[data-unsaved='0']")
        assert page.locator("#counts").inner_text() == "1 of 7"
        page.locator("#classes button").nth(2).click()
        page.keyboard.press("x")
        page.wait_for_selector("body[data-unsaved='0']")
        truth = server.desk._journal.log.truth()
        assert [truth[id_].label or truth[id_].action for id_ in order[:3]] == [NAMES[0], NAMES[2], "reject"]
        answer_images(page, lambda _: "1")
        assert page.locator("#done").inner_text() == "All images are answered."
        page.keyboard.press("z")
        assert shown() == order[-1]
        page.keyboard.press("u")
        page.wait_for_selector("#done:not([hidden])")
        page.wait_for_function(
            "document.getElementById('done').textContent.startsWith('Only what was skipped is left (1)')"
        )
        page.keyboard.press("?")
        keys = page.locator("#keys dt").all_inner_texts()
        assert keys == ["1", "2", "3", "Space", "x", "u", "z", "\u2190", "\u2192"]
        page.locator("#close").click()
        page.reload()
        assert shown() == order[-1]


def test_two_people_share_the_work(tmp_path: Path, save_image: Callable[..., Path], browser: Any) -> None:
    for number in range(40):
        save_image(tmp_path / "photos" / f"{number}.png", number)
    with serving(of_folder(tmp_path / "photos", ["cat", "dog"])) as server:
        with opened(browser, server.url) as one, opened(browser, server.url) as other:
            for page, name in ((one, "ann"), (other, "bob")):
                page.wait_for_selector("body[data-image]:not([data-image=''])")
                page.fill("#user", name)
                page.keyboard.press("Tab")
                page.evaluate("document.activeElement.blur()")
            left = iter(range(10))
            answer_images(one, lambda _: "1", lambda: next(left, None) is not None)
            one.wait_for_selector("body[data-unsaved='0']")
            answer_images(other, lambda _: "2", lambda: "other people" not in other.locator("#done").inner_text())
            one.goto("about:blank")  # what the other had is free again
            other.wait_for_selector("#done[hidden]", state="attached", timeout=10_000)
            answer_images(other, lambda _: "2")
            other.wait_for_selector("body[data-unsaved='0']")
        answers = server.desk._journal.log.standing()
        assert len(answers) == len({answer.image for answer in answers}) == 40
        assert {(answer.user, answer.label) for answer in answers} == {("ann", "cat"), ("bob", "dog")}


def test_hostile_names_are_text(tmp_path: Path, save_image: Callable[..., Path], browser: Any) -> None:
    name = "<img src=x onerror='document.title=1'>"
    save_image(tmp_path / "photos" / f"{name}.png", 1)
    subject = of_folder(tmp_path / "photos", [name, "</script><script>document.title=2</script>"])
    with serving(subject) as server, opened(browser, server.url) as page:
        page.wait_for_selector("body[data-image]:not([data-image=''])")
        assert page.locator("#name").inner_text() == f"{name}.png"
        assert page.locator("#classes .name").all_inner_texts() == list(subject.classes)
        assert page.locator("img").count() == 1
        page.keyboard.press("1")
        page.wait_for_selector("#done:not([hidden])")
        assert page.title() == "photos: review"
        assert server.desk._journal.log.truth().popitem()[1].label == name


def _points(page: Any) -> list[tuple[float, float]]:
    """Where the hand was, in pixels of the mask, by what the browser told of it."""
    seen, (left, top, width, height) = page.evaluate("[window.seen, window.box]")
    page.evaluate("window.seen.length = 0")
    return [((x - left) / width * 40, (y - top) / height * 30) for x, y in seen]


def _stroke(points: list[tuple[float, float]], size: int) -> npt.NDArray[np.bool_]:
    """Pixels whose centres are within half the size of a line through points."""
    down, across = np.mgrid[:30, :40] + 0.5
    near = np.zeros((30, 40), np.bool_)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[-1:], strict=True):
        length = (x1 - x0) ** 2 + (y1 - y0) ** 2
        at = ((across - x0) * (x1 - x0) + (down - y0) * (y1 - y0)) / length if length else np.zeros((30, 40))
        at = at.clip(0, 1)
        near |= (across - x0 - at * (x1 - x0)) ** 2 + (down - y0 - at * (y1 - y0)) ** 2 <= (size / 2) ** 2
    return near


def test_masks_are_corrected_and_become_truth_to_the_pixel(masked_run: Run, browser: Any) -> None:
    run = masked_run
    teacher = np.zeros((30, 40), np.uint8)
    teacher[10:20, 12:30] = 2
    expected: dict[str, npt.NDArray[np.uint8]] = {}
    with started(run.root) as (_, url), opened(browser, url) as page:

        def shown() -> str:
            page.wait_for_selector("body[data-image]:not([data-image=''])")
            return str(page.evaluate(SHOWN)[0])

        def hand(*points: tuple[float, float], drag: bool) -> None:
            box = page.locator("#mask").bounding_box()
            assert box is not None
            at = [(box["x"] + x / 40 * box["width"], box["y"] + y / 30 * box["height"]) for x, y in points]
            page.mouse.move(*at[0])
            if drag:
                page.mouse.down()
            for x, y in at:
                page.mouse.move(x, y)
                if not drag:
                    page.mouse.click(x, y)
            if drag:
                page.mouse.up()

        subject = of_run(run)
        drawn_by_people = [id_ for id_, item in subject.items.items() if item.record.mask]
        images = []
        shown()
        page.evaluate(
            """() => {
              const mask = document.getElementById("mask"), box = mask.getBoundingClientRect();
              window.seen = []; window.box = [box.left, box.top, box.width, box.height];
              for (const kind of ["pointerdown", "pointermove"]) mask.addEventListener(kind, (event) => {
                if (kind === "pointerdown" || event.buttons) for (const each of kind === "pointerdown" ? [event]
                  : event.getCoalescedEvents()) window.seen.push([each.clientX, each.clientY]);
              });
            }"""
        )
        while len(images) < 5:
            image = shown()
            if image in drawn_by_people:
                page.keyboard.press("u")
                page.wait_for_function("id => document.body.dataset.image !== id", arg=image)
                continue
            images.append(image)
            mask = teacher.copy()
            if len(images) == 1:  # the brush, in a class chosen by key, then the eraser over some of it
                page.keyboard.press("2")
                hand((5, 5), (20, 8), (33, 25), drag=True)
                mask[_stroke(_points(page), 9)] = 1
                page.keyboard.press("e")
                page.keyboard.press("[")
                hand((8, 3), (8, 27), drag=True)
                mask[_stroke(_points(page), 7)] = 0
            elif len(images) == 2:  # a polygon, closed by Enter; a stroke that is undone
                page.keyboard.press("p")
                page.keyboard.press("3")
                hand((2.2, 2.2), (10.4, 2.2), (10.4, 8.7), (2.2, 8.7), drag=False)
                page.keyboard.press("Enter")
                mask[2:9, 2:10] = 2
                page.keyboard.press("b")
                page.evaluate("window.seen.length = 0")
                hand((30, 25), (35, 25), drag=True)
                page.keyboard.press("z")
            elif len(images) == 3:  # fill
                page.keyboard.press("f")
                page.keyboard.press("2")
                hand((15, 15), drag=False)
                mask[mask == 2] = 1
            if len(images) == 5:
                page.keyboard.press("x")
            else:
                page.keyboard.press("Space")
                expected[image] = mask
            page.wait_for_function("id => document.body.dataset.image !== id", arg=image)
        page.wait_for_selector("body[data-unsaved='0']")
    assert [
        (answer.image in expected, answer.confirmed)
        for answer in read_journal(run.root / "review/journal.jsonl").truth().values()
    ] == [(True, False)] * 3 + [(True, True), (False, False)]
    manifest = read_data(run.root.parent)
    found = {record.id: read_mask(str(record.mask)) for record in manifest.of("train") if record.id in expected}
    assert found.keys() == expected.keys()
    for image, mask in expected.items():
        np.testing.assert_array_equal(found[image], mask)
    assert {e.id: e.reason for e in manifest.left_out} == {images[4]: "rejected in a review"}
    assert run.summary("data")["reviewed"] == {"new": 4, "confirmed": 0, "changed": 0, "left_out": 1, "elsewhere": 0}


DOCS = os.environ.get("REVIEW_DOCS", "")
"""CLASSIFIER:SEGMENTER, two run folders: screenshots are made of these and written to docs/images."""


@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_nothing_is_wider_than_the_screen(
    kind: str, width: int, request: pytest.FixtureRequest, browser: Any, tmp_path: Path
) -> None:
    pixels = kind == "masks"
    if DOCS:
        run = Run(Path(DOCS.split(":")[pixels]))
    else:
        run = request.getfixturevalue("masked_run") if pixels else request.getfixturevalue("sorted_run")()
    shape = {"viewport": {"width": width, "height": 844 if width < 500 else 760}, "has_touch": width < 500}
    scheme = "dark" if pixels == (width > 500) else "light"
    with serving(of_run(run)) as server, opened(browser, server.url, color_scheme=scheme, **shape) as page:
        page.wait_for_selector("body[data-image]:not([data-image=''])")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for button in page.locator("#panel button:visible").all():
            box = button.bounding_box()
            assert box is not None and box["height"] >= 44  # what a finger needs
            assert button.get_attribute("aria-label") or button.inner_text().strip()
        assert page.locator("#photo img").get_attribute("alt")
        for _ in range(3 if pixels else 8):
            page.wait_for_selector("body[data-image]:not([data-image=''])")
            page.keyboard.press("Space")
        page.wait_for_selector("body[data-unsaved='0']")
        page.wait_for_selector("body[data-image]:not([data-image=''])")
        if pixels:
            page.keyboard.press("3")
            box = page.locator("#mask").bounding_box()
            assert box is not None
            page.mouse.move(box["x"] + box["width"] * 0.62, box["y"] + box["height"] * 0.6)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.58, steps=5)
            page.mouse.up()
        folder = Path(__file__).parents[2] / "docs/images" if DOCS else tmp_path
        path = folder / f"review-{kind}-{'desktop' if width > 500 else 'phone'}.png"
        page.screenshot(path=path)
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 10
            colors = picture.convert("RGB")
            dither = Image.Dither.NONE if pixels else Image.Dither.FLOYDSTEINBERG  # of flat colours, and of a photo
            colors.quantize(palette=colors.quantize(256), dither=dither).save(path, optimize=True)
        if DOCS:
            shutil.rmtree(run.root / "review")
