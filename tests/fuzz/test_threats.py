"""The page about threats names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs/threats.md").read_text(encoding="utf-8")
_NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", _PAGE)))


@pytest.mark.parametrize(("file", "name"), _NAMED, ids=[name for _, name in _NAMED])
def test_each_threat_has_its_test(file: str, name: str) -> None:
    assert re.search(rf"^def {name}\(", (_ROOT / file).read_text(encoding="utf-8"), re.M), f"{file} has no {name}"


def test_there_are_many() -> None:
    assert len(_NAMED) > 20
