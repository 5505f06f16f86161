"""A folder with the images that a config names, made the current folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from distill.config_file import load_config
from distill.core.errors import ConfigError

SMALL = """\
data: {labeled: golden/train, validation: 0.2}
teacher: {timm: resnet18}
student: {timm: mobilenetv2_035}
"""
"""The smallest config that is right; a test adds its mistake from line 4 on."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("photos", "golden/train", "golden/val", "golden/test"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "index.csv").write_text("path,label,split\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # looking for a user's module puts the current folder there
    return tmp_path


@pytest.fixture
def mistakes(here: Path) -> Callable[..., list[str]]:
    """The lines that a config's mistakes are told in, without the headline."""

    def lines(text: str, overrides: Sequence[str] = ()) -> list[str]:
        path = here / "teacher.yaml"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config(path, overrides)
        headline, *told = str(caught.value).split("\n")
        count = "1 mistake" if len(told) == 1 else f"{len(told)} mistakes"
        assert headline in {f"{path} has {count}:", f"teacher.yaml has {count}:"}
        assert caught.value.exit_code == 2
        return [line.removeprefix("  ") for line in told]

    return lines
