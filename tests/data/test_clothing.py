"""A real set of masks, where it lies beside the checkout; in CI it must."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .conftest import ReadMasks

DATA = Path(__file__).parents[3] / "shared" / "data" / "clothing"


@pytest.fixture(scope="module", autouse=True)
def real_data() -> None:
    if not (DATA / "index.csv").exists():
        message = f"real data are not beside the checkout: {DATA / 'index.csv'}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def test_people_cover_what_its_authors_say(read_masks: ReadMasks) -> None:
    manifest = read_masks({"values": {0: "background", "1-58": "person"}}, manifest=DATA / "index.csv")
    counts = manifest.counts()
    assert manifest.classes == ("background", "person")
    expected = {"train_labelled": 614, "train_unlabelled": 1093, "validation": 150, "test": 240}
    assert {key: counts[key] for key in expected} == expected
    assert counts["left_out_by_reason"] == {"copy of an image of validation": 1}
    for shares in counts["pixel_shares"].values():
        assert shares["person"] == pytest.approx(0.23, abs=0.005)
    for record in manifest.of("test")[:20]:
        with Image.open(str(record.mask)) as mask:
            assert (mask.mode, mask.size) == ("L", (record.width, record.height))


def test_59_labels_become_8_groups(read_masks: ReadMasks) -> None:
    labels: dict[str, Any] = json.loads((DATA / "labels.json").read_text())
    names = labels["suggested_groups"]
    values = {value: names[group] for value, group in enumerate(labels["map59_to_group"])}
    manifest = read_masks({"values": values}, manifest=DATA / "index.csv", classes=names)
    counts = manifest.counts()
    assert list(manifest.classes) == names
    assert counts["pixel_shares"]["test"]["background"] == pytest.approx(0.771, abs=0.001)
    assert counts["by_class"]["test"] == {
        "background": 240, "skin": 240, "hair": 234, "upper": 201, "lower": 177, "full_body": 98, "footwear": 236,
        "accessory": 213,
    }  # fmt: skip


def test_its_59_labels_as_they_are(read_masks: ReadMasks) -> None:
    """Some of them occur nowhere; naming them all is no mistake."""
    names = json.loads((DATA / "labels.json").read_text())["labels59"]
    manifest = read_masks(manifest=DATA / "index.csv", classes=names)
    counted = manifest.counts()["by_class"]
    assert sum(counted[split]["swimwear"] for split in counted) == 0
    assert counted["train"]["hair"] > 500
