"""The report in headless Chromium: on a desk, on a phone, on paper, without a script.

With REPORT_DOCS=RUN, a finished run whose answers are labels, the pictures of docs/report.md are made of it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.report.page import render

DOCS = os.environ.get("REPORT_DOCS", "")
SHOWN = {"report": ("perturbation", "mistakes"), "segmented": ("masks",)}
"""Parts of which there are pictures besides that of the first screen, by fixture."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    program = shutil.which("chromium")
    for found, what in ((sync_playwright, "playwright (pip)"), (program, "chromium (apt)")):
        if not found:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{what} is missing")
    with sync_playwright() as playwright, ExitStack() as stack:
        flags = ["--no-sandbox", "--disable-gpu"]
        yield stack.enter_context(playwright.chromium.launch(executable_path=program, args=flags))


@pytest.mark.parametrize("task", list(SHOWN))
def test_fits_a_desk_a_phone_and_paper(
    task: str, request: pytest.FixtureRequest, pictures: dict[str, bytes], browser: Any, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(request.getfixturevalue(task), pictures), encoding="utf-8")
    docs = task == "report" and DOCS
    if docs:
        path = Path(docs).resolve() / "report.html"
    folder = Path(__file__).parents[2] / "docs/images" if docs else tmp_path
    for name, width, height in (("desktop", 1280, 900), ("phone", 375, 812)):
        shape = {"width": width, "height": height}
        page = browser.new_page(viewport=shape, color_scheme="light")
        said: list[str] = []
        page.on("console", lambda message, said=said: said.append(message.text))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        page.wait_for_function("[...document.images].every(image => image.complete)")
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert said == []
        keep(page, folder / f"report-first-{name}.png")
        for part in SHOWN[task]:
            page.evaluate(f"document.getElementById('{part}').scrollIntoView()")
            keep(page, folder / f"report-{part}-{name}.png")
        page.close()
    page = browser.new_page(viewport={"width": 718, "height": 1000})  # A4 less its margins
    page.goto(path.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718, "nothing is cut off on paper"
    assert not page.locator("nav").is_visible()
    assert all(page.evaluate("[...document.querySelectorAll('details > :not(summary)')].map(e => e.checkVisibility())"))
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


def keep(page: Any, path: Path) -> None:
    """A screenshot of what is seen, in 256 colours."""
    page.screenshot(path=path)
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
        colors = picture.convert("RGB")
        colors.quantize(palette=colors.quantize(256), dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
