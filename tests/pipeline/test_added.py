"""Images that are added to a run: the teacher is asked about them alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill.labels.maps import MapStore
from distill.labels.store import LabelStore
from tests.workplace import SHAPES, Workplace, prepare, write_shapes

Prepare = Callable[[Path, Path], tuple[Workplace, Path]]


def classify(root: Path, photos: Path) -> tuple[Workplace, Path]:
    shutil.copytree(photos, root / "mine")
    return prepare(root, root / "mine"), root / "mine/unlabeled"


def segment(root: Path, photos: Path) -> tuple[Workplace, Path]:
    write_shapes(root / "shapes")
    (root / "teacher.yaml").write_text(SHAPES)
    shutil.rmtree(root / "shapes/unlabeled/masks", ignore_errors=True)
    return Workplace(root), root / "shapes/unlabeled"


def said(store: LabelStore | MapStore, image: str) -> tuple[object, ...]:
    """All that is stored of an image, bit by bit."""
    if isinstance(store, MapStore):
        return store.entry(store.position(image))
    _, views, *numbers = store.about([image])
    return (*views, *(each.tobytes() for each in numbers))


def confidence(store: LabelStore | MapStore) -> object:
    return store.mean_confidence() if isinstance(store, MapStore) else store.targets(0)


@pytest.mark.parametrize(("prepared", "opened"), [(classify, LabelStore), (segment, MapStore)])
def test_only_added_images_are_asked_about(
    tmp_path: Path, photos: Path, prepared: Prepare, opened: type[LabelStore] | type[MapStore]
) -> None:
    place, pool = prepared(tmp_path, photos)
    some = sorted(path for path in pool.rglob("*") if path.is_file())
    added = tmp_path / "added"
    added.mkdir()
    for path in some[::9]:
        path.rename(added / path.name)
    until = ("run", "teacher.yaml", "--set", "teacher.fit.epochs=2", "--until", "labels")
    told = place.run(*until)
    assert "known from" not in told
    run = tmp_path / "runs/teacher"
    shutil.copytree(run / "labels", tmp_path / "first")
    first = opened(tmp_path / "first")
    some[1].unlink()  # and one is not there any more

    more = (*until, "--set", f"data.unlabeled=[{pool.relative_to(tmp_path)}, added]")
    told = place.run(*more)
    second = opened(run / "labels")
    images = [second.image(place) for place in range(second.images)]
    known = [image for image in images if image in first]
    assert (len(known), len(images)) == (first.images - 1, first.images - 1 + len(some[::9]))
    assert f"{len(known)} of them known from the labelling before" in told
    assert second.facts["taken_over"] == len(known)
    assert [said(second, image) for image in known] == [said(first, image) for image in known]
    assert not list(run.glob("*-before"))
    assert "Nothing to do" in place.run(*more)
    assert f"cut otherwise than when {len(known)} of the images were labelled" in place.run("labels", "verify")

    shutil.copytree(run, tmp_path / "runs/anew")
    shutil.rmtree(tmp_path / "runs/anew/labels")
    told = place.run(*more, "--set", "output=runs/anew")
    assert "known from" not in told
    anew = opened(tmp_path / "runs/anew/labels")
    assert [anew.image(place) for place in range(anew.images)] == images
    np.testing.assert_allclose(confidence(second), confidence(anew), atol=2e-3)  # of half a precision's step
    assert [said(anew, image)[0] for image in images] == [said(second, image)[0] for image in images]


def test_another_teacher_is_asked_about_every_image(workplace: Workplace) -> None:
    short = ("run", "teacher.yaml", "--set", "labels.views=2", "--until", "labels", "--set")
    workplace.run(*short, "teacher.fit.lr=0.001")
    told = workplace.run(*short, "teacher.fit.lr=0.003")
    assert "labels" in told and "known from" not in told
    assert LabelStore(workplace.root / "runs/teacher/labels").facts["taken_over"] == 0
