"""Runs with a label store that was filled by hand, a server in this process or its own, and a browser."""

from __future__ import annotations

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
from rich.console import Console

from distill import pipeline
from distill.config_file import load_config
from distill.core.run import Run
from distill.data.manifest import Manifest
from distill.data.views import View
from distill.labels import maps, store
from distill.labels.shards import shard_path
from distill.review.desk import Desk
from distill.review.journal import Journal
from distill.review.server import Server
from distill.review.subject import Subject, of_folder
from tests.workplace import COLOURS

PLAIN = """\
teacher: {timm: test_resnet, pretrained: false, image_size: 32}
student: {timm: tf_mobilenetv3_small_minimal_100, pretrained: false}
"""
PIXELS = """\
task: segmentation
data: {unlabeled: unlabeled, labeled: labeled, validation: validation, classes: [background, disc, square]}
teacher: {smp: unet, encoder: tu-tf_mobilenetv3_small_minimal_100, encoder_weights: null}
student: {smp: deeplabv3plus, encoder: mobilenetv4_conv_small, pretrained: false}
"""
NAMES = tuple(COLOURS)


def read_data(root: Path) -> Manifest:
    """Do the stage `data` of a run as `distill run --until data` does."""
    pipeline.run(load_config(root / "teacher.yaml", [f"output={root / 'run'}"]), Console(quiet=True), until="data")
    return Manifest.load(root / "run/data/manifest.parquet")


def colour_of(path: str) -> str:
    """The class that a photo of `sorted_run` should get."""
    return Path(path).name.split("-")[0]


@pytest.fixture
def sorted_run(tmp_path: Path) -> Callable[..., Run]:
    """A run of some photos of three colours, of which the teacher is wrong about every third."""

    def made(unlabelled: int = 12, labelled: int = 6) -> Run:
        rng = np.random.default_rng(5)
        for part, count in {"unlabeled": unlabelled, "labeled": labelled, "validation": 6, "test": 3}.items():
            for number in range(count):
                name = NAMES[number % 3]
                folder = tmp_path / part / ("" if part == "unlabeled" else name)
                folder.mkdir(parents=True, exist_ok=True)
                pixels = np.clip(rng.normal(COLOURS[name], 45, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{name}-{number:03d}.png")
        folders = ", ".join(f"{part}: {part}" for part in ("unlabeled", "labeled", "validation", "test"))
        (tmp_path / "teacher.yaml").write_text(f"data: {{{folders}}}\n{PLAIN}")
        records = read_data(tmp_path).of("train")
        truth = np.array([NAMES.index(colour_of(record.path)) for record in records])
        said = np.where(np.arange(len(records)) % 3 == 0, (truth + 1) % 3, truth)
        answers = np.full((len(records), 3), 0.1, np.float32)
        answers[np.arange(len(records)), said] = np.linspace(0.4, 0.99, len(records))
        answers /= answers.sum(axis=1, keepdims=True)
        folder = tmp_path / "run/labels"
        views = [View(0, 0, 32, 32, False) for _ in records]
        shard = store.Shard.of([record.id for record in records], views, answers, 3)
        store.write_shard(shard_path(folder, 0), shard, 3, "f")
        facts = {"fingerprint": "f", "classes": 3, "class_names": list(NAMES), "images": len(records), "shards": 1}
        store.finish(folder, {**facts, "views": 1, "top_k": 3})
        return Run(tmp_path / "run")

    return made


@pytest.fixture
def masked_run(tmp_path: Path) -> Run:
    """A run of five unlabelled and two labelled scenes of 40x30 pixels, whose teacher saw one square in all of them."""
    rng = np.random.default_rng(6)
    for part, count in {"unlabeled": 5, "labeled": 2, "validation": 2}.items():
        labelled = part != "unlabeled"
        images, masks = (tmp_path / part / (name if labelled else "") for name in ("images", "masks"))
        images.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(images / f"{part}{number}.png")
            if labelled:
                masks.mkdir(exist_ok=True)
                mask = np.zeros((30, 40), np.uint8)
                mask[4:9, 5 : 9 + number] = 1 + number
                Image.fromarray(mask).save(masks / f"{part}{number}.png")
    (tmp_path / "teacher.yaml").write_text(PIXELS)
    records = read_data(tmp_path).of("train")
    said = np.zeros((30, 40), np.uint8)
    said[10:20, 12:30] = 2
    soft = np.full((4, 4, 3), 1 / 3, np.float32)
    entries = [
        maps.Entry.of(soft, said, np.full((30, 40), 0.9 - place / 20, np.float32), 2) for place in range(len(records))
    ]
    folder = tmp_path / "run/labels"
    maps.write_shard(shard_path(folder, 0), [record.id for record in records], entries, "f")
    facts = {"fingerprint": "f", "classes": 3, "class_names": ["background", "disc", "square"], "shards": 1}
    maps.finish(folder, {**facts, "images": len(records), "grid": 4, "top_k": 2})
    return Run(tmp_path / "run")


@pytest.fixture
def photos_to_sort(tmp_path: Path, save_image: Callable[..., Path]) -> Subject:
    """Eight photos and two classes."""
    for number in range(8):
        save_image(tmp_path / "photos" / f"{number}.png", number, (20, 16))
    return of_folder(tmp_path / "photos", ["cat", "dog"])


@contextmanager
def serving(subject: Subject, **options: Any) -> Iterator[Server]:
    """A server in a thread of this process."""
    journal = Journal(subject.folder, subject.classes)
    server = Server(Desk(subject, journal, **options), 0, "ann")
    thread = threading.Thread(target=server.serve, args=(lambda _: None,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        journal.close()


@contextmanager
def started(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`distill review` in a process of its own, and the address that it prints."""
    command = [sys.executable, "-m", "distill", "review", *map(str, arguments), "--no-browser", "--user", "ann"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("open "):
                yield process, line.split()[1]
                break
        else:
            raise AssertionError("".join(said))
    finally:
        process.kill()
        process.communicate()


def need(found: object, what: str) -> None:
    if not found:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is missing")
        pytest.skip(f"{what} is missing")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    program = shutil.which("chromium")
    need(sync_playwright, "playwright (pip)")
    need(program, "chromium (apt)")
    with sync_playwright() as playwright, ExitStack() as stack:
        flags = ["--no-sandbox", "--disable-gpu"]
        yield stack.enter_context(playwright.chromium.launch(executable_path=program, args=flags))


@contextmanager
def opened(browser: Any, url: str, *, init: str = "", **options: Any) -> Iterator[Any]:
    """The page, with whatever its scripts complain about as a failure; `init` is run before them."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
    page.add_init_script(init)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((url.split("?")[0], "data:")) else complaints.append(r.url))
    page.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    try:
        yield page
        assert complaints == []
    finally:
        page.close()


SHOWN = """[document.body.dataset.image ?? "", document.getElementById("done").hidden
  || document.getElementById("done").textContent.startsWith("Loading")]"""


def answer_images(page: Any, key_of: Callable[[str], str], go_on: Callable[[], bool] = lambda: True) -> int:
    """Press the key of each image that is shown, as fast as they come, until there is none; counts them."""
    before, count = "", 0
    while go_on():
        image, more = page.evaluate(SHOWN)
        if not more:
            break
        if image and image != before:
            page.keyboard.press(key_of(image))
            before, count = image, count + 1
    return count
