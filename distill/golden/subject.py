"""What is scored on: the test images of a run, or labelled images that somebody names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import DataSettings
from distill.core.errors import DataError
from distill.core.progress import Progress
from distill.core.task import Task
from distill.core.types import ImageRecord, Split
from distill.data.candidate import Candidate, first_of
from distill.data.groups import find_groups
from distill.data.manifest import Manifest, scan
from distill.data.sources import find_test
from distill.data.views import Resize

__all__ = ["Golden", "find_in_classes", "read_images", "settings_for"]


@dataclass(frozen=True)
class Golden:
    """Labelled images to be judged by.

    Args:
        source: what named them, for people.
        manifest: that holds them.
        split: of them in the manifest.
        task: says what is right, in the manifest's classes.
        resize: shape of the view that is judged.
        data: names the groups.
    """

    source: str
    manifest: Manifest
    split: Split
    task: Task
    resize: Resize
    data: DataSettings

    @property
    def records(self) -> Sequence[ImageRecord]:
        """In order of id."""
        return self.manifest.of(self.split, labelled=True)

    def groups(self) -> dict[str, list[int]]:
        """Places in `records` by name of the group.

        Raises:
            DataError: the manifest lacks a column.
        """
        return find_groups(self.data, self.records)


def settings_for(
    data: Path, groups: Sequence[str], classes: Sequence[str] | None, like: DataSettings | None = None
) -> DataSettings:
    """How labelled images that no config names are read.

    Args:
        data: a folder as `data.test` takes it, or a manifest.
        groups: as in `data.groups`.
        classes: in the order of the answers; None for those that are found.
        like: of a run, whose masks mean the same.
    """
    # Neither validation nor training images are needed here, which the section itself would ask for.
    settings = like if like is not None else DataSettings.model_construct()
    source = (
        {"test": data.absolute(), "manifest": None} if data.is_dir() else {"test": None, "manifest": data.absolute()}
    )
    named = {"groups": list(groups), "classes": None if classes is None else list(classes)}
    nothing: dict[str, Any] = {
        "unlabeled": [],
        "labeled": None,
        "validation": None,
        "demo": None,
        "corrections": None,
        "second": None,
    }
    return settings.model_copy(update={**nothing, **source, **named})


def find_in_classes(settings: DataSettings, task: str, option: str) -> list[Candidate]:
    """The files, whose labels are all among the classes.

    Args:
        settings: of `settings_for`.
        task: says what truth is.
        option: that named them.

    Raises:
        DataError: there is nothing to read, or labels are unknown, which it names.
    """
    data = settings.manifest or settings.test
    assert isinstance(data, Path)
    if not data.exists():
        raise DataError(f"{option}: found no file or folder {data}")
    try:
        found = find_test(data, task, settings.classes)
    except DataError as error:
        raise _renamed(error, option) from None
    if settings.classes is not None:
        unknown = Counter(c.label for c in found if c.label is not None and c.label not in settings.classes)
        if unknown:
            told = [f"{name}: {n} image{'s' * (n > 1)}" for name, n in sorted(unknown.items())]
            classes = ", ".join(settings.classes)
            raise DataError(f"{option}: {data} has classes that are none of {classes}:\n{first_of(told)}")
    return found


def read_images(
    candidates: Sequence[Candidate], settings: DataSettings, masks: Path | None, option: str, progress: Progress
) -> Manifest:
    """Every image with its hash and truth, or why it is left out.

    Args:
        candidates: of `find_in_classes`.
        settings: the same.
        masks: folder that masks are written to; None where truth is a class an image.
        option: that named them.
        progress: told of each image.

    Raises:
        DataError: masks that cannot be used, or no image that can.
    """
    try:
        manifest = scan(candidates, settings, None, progress, masks, complete=False)
    except DataError as error:
        raise _renamed(error, option) from None
    if not manifest.of("test", labelled=True):
        reasons = "; ".join(f"{n} {reason}" for reason, n in manifest.counts()["left_out_by_reason"].items())
        raise DataError(
            f"{option}: none of {len(manifest.entries)} files is a labelled image that can be used: {reasons}"
        )
    return manifest


def _renamed(error: DataError, option: str) -> DataError:
    """By the option that the user gave, not by the key of a config."""
    told = str(error).replace("data.classes lacks", "the classes lack")
    for key in ("data.test: ", "data.manifest: "):
        told = told.removeprefix(key)
    return DataError(f"{option}: {told}")
