"""What an epoch shows, where few images have truth."""

from __future__ import annotations

import numpy as np
import pytest

from distill.examples import turns_of

LABELLED = np.arange(40) % 10 == 3  # 4 of 40


@pytest.mark.parametrize(("share", "wanted"), [(None, 4), (0.05, 4), (0.25, 10), (0.9, 36)])
def test_labelled_images_are_the_share_of_an_epoch_that_is_asked_for(share: float | None, wanted: int) -> None:
    for epoch in range(5):
        places = turns_of(LABELLED, share, seed=1, epoch=epoch)[:, 0]
        assert len(places) == len(LABELLED)
        assert LABELLED[places].sum() == wanted
        others = places[~LABELLED[places]]
        assert len(set(others.tolist())) == len(others) == len(LABELLED) - wanted
        shown = np.bincount(places[LABELLED[places]], minlength=40)[LABELLED]
        assert shown.max() - shown.min() <= 1


def test_no_two_turns_of_an_image_have_the_same_number() -> None:
    """Or it would be shown under the same view twice."""
    turns = np.concatenate([turns_of(LABELLED, 0.6, seed=0, epoch=epoch) for epoch in range(8)])
    assert len(np.unique(turns, axis=0)) == len(turns)


def test_an_epoch_depends_on_its_number_and_the_seed_alone() -> None:
    first = turns_of(LABELLED, 0.5, seed=3, epoch=2)
    assert np.array_equal(first, turns_of(LABELLED, 0.5, seed=3, epoch=2))
    assert not np.array_equal(first, turns_of(LABELLED, 0.5, seed=3, epoch=3))
    assert not np.array_equal(first, turns_of(LABELLED, 0.5, seed=4, epoch=2))


@pytest.mark.parametrize("labelled", [np.zeros(6, bool), np.ones(6, bool)])
def test_images_that_are_all_alike_come_once_each(labelled: np.ndarray) -> None:
    assert sorted(turns_of(labelled, 0.5, seed=0, epoch=0)[:, 0]) == list(range(6))
