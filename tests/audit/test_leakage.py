"""What `distill run` does of images in two splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from distill.cli import app
from distill.data.manifest import Manifest

from .conftest import photo, save

CONFIG = """
data: {unlabeled: photos/unlabeled, labeled: photos/train, validation: photos/val, test: photos/test}
teacher: {timm: test_resnet, pretrained: false}
student: {timm: mobilenetv4_conv_small, pretrained: false, image_size: 64}
output: run
"""
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the stage `data` in a folder with photos, and an unlabelled one."""
    monkeypatch.chdir(tmp_path)
    save(photo(300), photos / "unlabeled" / "a.png")
    (tmp_path / "teacher.yaml").write_text(CONFIG)

    def runs(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["run", "teacher.yaml", "--until", "data", *arguments])
        return done.exit_code, done.output

    return runs


def fates(root: Path) -> dict[str, str]:
    return {Path(e.candidate.path).name: e.reason for e in Manifest.load(root / "run/data/manifest.parquet").left_out}


def test_labelled_images_in_two_splits_stop_the_run(run: Run, photos: Path, tmp_path: Path) -> None:
    held = Image.open(photos / "test" / "cat" / "37.png")
    save(held.resize((48, 40)), photos / "train" / "cat" / "small.png")
    save(held.crop((5, 4, 91, 76)), photos / "val" / "cat" / "trimmed.png")
    shutil.copy(photos / "val" / "dog" / "31.png", photos / "train" / "dog" / "copied.png")
    code, said = run()
    assert code == 2 and "Traceback" not in said
    assert "3 labelled images show what an image of another split shows" in said
    test = photos / "test" / "cat" / "37.png"
    assert f"{photos / 'train' / 'cat' / 'small.png'} (train) shows what is in {test} (test)" in said
    assert f"{photos / 'val' / 'cat' / 'trimmed.png'} (validation) shows what is in {test} (test)" in said
    assert f"{photos / 'train' / 'dog' / 'copied.png'} (train) is a copy of" in said
    assert "`leaks: drop` under `data`" in said
    assert len(json.loads((tmp_path / "run/data/leaks.json").read_text())) == 3
    code, said = run("--set", "data.leaks=drop")
    assert code == 0, said
    assert "3 pairs of images in two splits that show the same: see data/leaks.json" in said
    left_out = fates(tmp_path)
    assert set(left_out) == {"small.png", "trimmed.png", "copied.png"}
    assert left_out["trimmed.png"].startswith("shows what a test image shows: ")


@pytest.mark.parametrize("change", [ImageOps.flip, ImageOps.mirror, lambda image: image.rotate(90, expand=True)])
def test_unlabelled_copies_are_left_out(
    run: Run, photos: Path, tmp_path: Path, change: Callable[[Image.Image], Image.Image]
) -> None:
    held = Image.open(photos / "test" / "cat" / "37.png")
    save(change(held), photos / "unlabeled" / "copy.jpg")
    code, said = run()
    assert code == 0, said
    assert "left out: 1 x shows what a test image shows" in said
    assert set(fates(tmp_path)) == {"copy.jpg"}
    (pair,) = json.loads((tmp_path / "run/data/leaks.json").read_text())
    assert (Path(pair["image"]).name, pair["labelled"], Path(pair["of"]).name) == ("copy.jpg", False, "37.png")


def test_the_same_file_in_the_pool_is_a_pair_too(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copy(photos / "test" / "cat" / "37.png", photos / "unlabeled" / "same.png")
    assert run()[0] == 0
    (pair,) = json.loads((tmp_path / "run/data/leaks.json").read_text())
    assert pair["same_bytes"] and Path(pair["image"]).name == "same.png"


def test_what_a_share_parts_is_left_out(run: Run, photos: Path, tmp_path: Path) -> None:
    """Nobody chose these splits, so there is nothing that somebody should put right."""
    for number in range(1, 13):
        save(photo(number).resize((48, 40)), photos / "train" / "cat" / f"small{number}.png")
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "train" / "cat" / "again.png")
    (tmp_path / "teacher.yaml").write_text(CONFIG.replace("photos/val", "0.3").replace("photos/test", "0.3"))
    code, said = run()
    assert code == 0, said
    pairs = json.loads((tmp_path / "run/data/leaks.json").read_text())
    assert len(pairs) > 2 and all(pair["drawn"] and not pair["same_bytes"] for pair in pairs)
    assert {Path(pair["image"]).name for pair in pairs} <= set(fates(tmp_path))
    audited = CliRunner().invoke(app, ["audit", "teacher.yaml"])
    assert audited.exit_code == 0
    assert "warning: Labelled images that a share put into two splits" in audited.output
