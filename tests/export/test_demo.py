"""The demo in a real browser: headless Chromium opens the page, chooses pictures, and reads what a person would.

DEMO_DOCS=CLASSIFIER:SEGMENTER, two run folders, makes the first two tests take their files and images from these runs
and write their screenshots to docs/images: those in the docs are of the quickstarts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.core.dense import scale_map
from distill.core.overlay import class_colors
from distill.core.run import Run
from distill.data.decode import decode
from distill.data.manifest import Manifest
from distill.data.views import fixed_view, render
from export.demo import serve
from export.isolated import FilePredictor

DOCS = os.environ.get("DEMO_DOCS", "")
READY = "Ready."
PHONE = {"width": 390, "height": 844}
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def need(found: object, what: str) -> None:
    if not found:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is missing")
        pytest.skip(f"{what} is missing")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Callable[..., Any]]:
    """Opens a browser with these arguments."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    program = shutil.which("chromium")
    need(sync_playwright, "playwright (pip)")
    need(program, "chromium (apt)")
    need(shutil.which("npm"), "npm")
    with sync_playwright() as playwright, ExitStack() as stack:

        def launch(*arguments: str) -> Any:
            flags = ["--no-sandbox", "--disable-gpu", *arguments]
            return stack.enter_context(playwright.chromium.launch(executable_path=program, args=flags))

        yield launch


@pytest.fixture(scope="module")
def browser(chromium: Callable[..., Any]) -> Any:
    return chromium()


@pytest.fixture(scope="module")
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A run and its demo."""
    root = Path(DOCS.split(":")[0]) if DOCS else request.getfixturevalue("finished").root / "runs/teacher"
    return Run(root), made(root, tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def segmenter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    root = Path(DOCS.split(":")[1]) if DOCS else request.getfixturevalue("segmented").root / "runs/teacher"
    return Run(root), made(root, tmp_path_factory.mktemp("segmenter"))


def made(run: Path, folder: Path) -> Path:
    need(shutil.which("npm"), "npm")
    command = [sys.executable, "-m", "distill", "demo", "--run", str(run), "--into", str(folder / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "demo"


@contextmanager
def opened(browser: Any, folder: Path, **options: Any) -> Iterator[Any]:
    """The page of a demo, with whatever it and its scripts complain about as a failure."""
    addresses: list[str] = []
    told = threading.Event()

    def ready(address: str) -> None:
        addresses.append(address)
        told.set()

    threading.Thread(target=serve, args=(folder, 0, ready), daemon=True).start()
    assert told.wait(10)
    page = browser.new_page(viewport=PHONE, **options)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if elsewhere(request.url, addresses[0]) else None)
    page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(addresses[0])
    try:
        yield page
        assert complaints == []
    finally:
        page.close()


def elsewhere(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:"))


def status(page: Any, text: str) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#status")).to_have_text(text, timeout=60_000)


def choose(page: Any, picture: Path) -> None:
    page.set_input_files("#file", picture)
    status(page, picture.name)


def shown_labels(page: Any) -> list[tuple[int, float]]:
    """Place and percents of each line."""
    lines = page.locator("#labels li").all()
    return [(int(li.get_attribute("data-place")), float(li.inner_text().split()[-2])) for li in lines]


def test_images(run: Run, count: int) -> list[Path]:
    records = Manifest.load(run.folder("data") / "manifest.parquet").of("test")
    return [Path(record.path) for record in records[:count]]


test_images.__test__ = False  # type: ignore[attr-defined]


def answers(demo: Path, pictures: list[Path]) -> tuple[dict[str, Any], np.ndarray, list[tuple[int, int]]]:
    """What Python says to the same file: logits, and the size of what is seen of each picture."""
    about = json.loads((demo / "model.json").read_text())
    images = [decode(picture) for picture in pictures]
    views = [fixed_view(*image.size, about["resize"]) for image in images]
    pixels = np.stack([render(i, view, about["image_size"]) for i, view in zip(images, views, strict=True)])
    with FilePredictor(demo / about["file"], "tflite", about["labels"], output=about["output"]) as predictor:
        return about, predictor.predict(pixels), [(view.height, view.width) for view in views]


def screenshot(page: Any, name: str, tmp_path: Path) -> None:
    folder = Path(__file__).parents[2] / "docs/images" if DOCS else tmp_path
    page.screenshot(path=folder / f"{name}.png")
    with Image.open(folder / f"{name}.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
        picture.convert("RGB").save(folder / f"{name}.png", optimize=True)


@pytest.mark.xdist_group("finished")
def test_a_classifier_names_the_same_class_as_python(
    classifier: tuple[Run, Path], browser: Any, tmp_path: Path
) -> None:
    run, demo = classifier
    pictures = test_images(run, 20)
    about, logits, _ = answers(demo, pictures)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    with opened(browser, demo) as page:
        status(page, READY)
        assert page.locator("h1").inner_text() == run.root.name
        for picture, expected in zip(pictures, shares, strict=True):
            choose(page, picture)
            found = shown_labels(page)
            assert found[0][0] == expected.argmax()
            assert len(found) == min(5, len(about["labels"]))
            for place, percents in found:
                assert percents == pytest.approx(100 * expected[place], abs=0.1)
        assert float(page.locator("#times").inner_text().split()[1]) > 0
        # Nothing is wider than a phone.
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        choose(page, pictures[shares.max(axis=-1).argmax()])  # the surest
        screenshot(page, "demo-classifier", tmp_path)


@pytest.mark.xdist_group("segmented")
def test_a_segmenter_draws_the_same_masks_as_python(segmenter: tuple[Run, Path], browser: Any, tmp_path: Path) -> None:
    run, demo = segmenter
    pictures = test_images(run, 20)
    about, logits, sizes = answers(demo, pictures)
    colors = class_colors(len(about["labels"]))
    equal = pixels = 0
    shares: list[list[float]] = []
    with opened(browser, demo, color_scheme="dark") as page:
        status(page, READY)
        for picture, maps, (height, width) in zip(pictures, logits, sizes, strict=True):
            choose(page, picture)
            drawn = np.array(page.evaluate(READ_MASK), np.uint8).reshape(height, width, 4)
            expected = scale_map(maps, height, width).argmax(axis=-1)
            found = (drawn[:, :, None, :3] == colors).all(axis=-1).argmax(axis=-1)
            assert ((drawn[..., 3] == 0) == (found == 0)).all()  # the background stays clear
            equal, pixels = equal + int((found == expected).sum()), pixels + expected.size
            said = dict(shown_labels(page))
            assert said == pytest.approx(
                {c: 100 * (found == c).mean() for c in range(len(about["labels"])) if (found == c).any()}, abs=0.06
            )
            shares.append([said.get(place, 0.0) for place in range(len(about["labels"]))])
        choose(page, pictures[int(np.min(shares, axis=-1).argmax())])  # one that shows every class, where there is one
        screenshot(page, "demo-segmenter", tmp_path)
    assert equal / pixels > 0.999


READ_MASK = """() => {
  const mask = document.getElementById("mask");
  return Array.from(mask.getContext("2d").getImageData(0, 0, mask.width, mask.height).data);
}"""


@pytest.mark.xdist_group("finished")
def test_photos_as_phones_make_them(classifier: tuple[Run, Path], browser: Any, tmp_path: Path) -> None:
    """Turned by EXIF, transparent, tall, larger than the canvas of some browsers."""
    rng = np.random.default_rng(7)
    noise = Image.fromarray(np.kron(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.save(tmp_path / "turned.png", exif=exif)
    alpha = Image.fromarray(np.kron(rng.choice(np.uint8([0, 255]), (20, 30)), np.ones((4, 4), np.uint8)))
    clear = noise.copy()
    clear.putalpha(alpha)
    clear.save(tmp_path / "clear.png")
    noise.resize((61, 997)).save(tmp_path / "tall.png")
    noise.resize((5000, 3600)).save(tmp_path / "large.png", compress_level=1)
    pictures = sorted(tmp_path.glob("*.png"))
    _, demo = classifier
    _, logits, _ = answers(demo, pictures)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    with opened(browser, demo) as page:
        status(page, READY)
        for picture, expected in zip(pictures, shares, strict=True):
            choose(page, picture)
            for place, percents in shown_labels(page):
                assert percents == pytest.approx(100 * expected[place], abs=0.1), picture.name


@pytest.mark.xdist_group("finished")
def test_names_are_text_and_mistakes_are_said(classifier: tuple[Run, Path], browser: Any, tmp_path: Path) -> None:
    run, demo = classifier
    hostile = tmp_path / "hostile"
    shutil.copytree(demo, hostile)
    about = json.loads((demo / "model.json").read_text())
    about["labels"] = [f"<img src=x onerror='document.title=1'>{n}" for n in about["labels"]]
    about["run"] = "<script>document.title=1</script>"
    (hostile / "model.json").write_text(json.dumps(about))
    with opened(browser, hostile) as page:
        status(page, READY)
        choose(page, test_images(run, 1)[0])
        assert page.locator("#labels li .name").first.inner_text() in about["labels"]
        assert page.locator("img").count() == 0
        assert page.title() == about["run"]
        (tmp_path / "notes.txt").write_text("no picture")
        page.set_input_files("#file", tmp_path / "notes.txt")
        status(page, "notes.txt is no picture that this browser can read.")
        page.locator("#camera").click()
        status(page, "No camera: there is none. A picture can be chosen.")
    (hostile / about["file"]).write_bytes(b"no model")
    with opened(browser, hostile) as page:
        page.locator("#status.bad").wait_for(timeout=60_000)
        assert "does not run in this browser" in page.locator("#status").inner_text()
        assert page.locator("#file").is_disabled()


@pytest.mark.xdist_group("finished")
def test_the_camera_is_followed_until_it_is_stopped(classifier: tuple[Run, Path], chromium: Callable[..., Any]) -> None:
    from playwright.sync_api import expect

    with opened(chromium(*CAMERA), classifier[1]) as page:
        status(page, READY)
        page.locator("#camera").click()
        expect(page.locator("#times")).to_contain_text("pictures a second", timeout=60_000)
        assert page.locator("#camera").inner_text() == "Stop camera"
        assert page.locator("#labels li").count() == 3
        page.locator("#camera").click()
        expect(page.locator("#camera")).to_have_text("Start camera")


@pytest.mark.xdist_group("finished")
def test_again_changes_nothing_and_foreign_folders_are_left_alone(classifier: tuple[Run, Path], tmp_path: Path) -> None:
    run, demo = classifier
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*.wasm")}
    assert len(before) == 2
    assert made(run.root, demo.parent) == demo
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*.wasm")} == before
    about = json.loads((demo / "model.json").read_text())
    assert "calibration" not in about  # ids of the user's images
    (tmp_path / "mine.txt").write_text("mine")
    command = [sys.executable, "-m", "export", "demo", "--run", str(run.root), "--into", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path} holds other things than a demo; choose a new folder by --into" in done.stderr
    done = subprocess.run([*command, "--file", "onnx-int8"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the page runs TFLite files, e.g. tflite-int8" in done.stderr


@pytest.mark.xdist_group("finished")
def test_without_npm_the_message_says_what_to_install(classifier: tuple[Run, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "export", "demo", "--run", str(classifier[0].root), "--into", str(tmp_path / "a")]
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert "install Node.js (e.g. `apt install npm`)" in done.stderr
    assert not (tmp_path / "a").exists()
    assert list((tmp_path / "cache" / "mobile-distill").iterdir()) == []
