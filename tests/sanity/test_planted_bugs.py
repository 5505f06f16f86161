"""Each classic bug is caught by the check that is there for it, and none fires where all is well."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.sanity import suite
from distill.stages import Work
from tests.sanity import places
from tests.sanity.planted import BUGS, Bug

QUICK = {check.name for check in suite.CHECKS if check.quick}


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    root = tmp_path_factory.mktemp("sanity")
    return {task: places.asked(places.prepare(root, task)) for task in places.CONFIGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_matching_check_fires(
    bug: Bug, works: dict[str, Work], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = works[bug.task]
    bug.plant(monkeypatch)
    settings = work.config.train.model_copy(update=bug.train)
    subject = places.looked_at(work, tmp_path, stored=bug.stored, train=settings)
    ((result,), _) = suite.examine(subject, quick=False, names=[bug.check])
    assert result.status == "failed", result
    assert result.causes and result.expected and result.saw


@pytest.mark.parametrize("task", places.CONFIGS)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "truth"])
def test_no_quick_check_fires_where_all_is_well(
    task: str, stored: bool, works: dict[str, Work], tmp_path: Path
) -> None:
    results, pictures = suite.examine(places.looked_at(works[task], tmp_path, stored=stored), quick=True)
    assert {result.name for result in results} == QUICK
    assert [result for result in results if result.status == "failed"] == []
    assert {"input-tensor-fed"} <= set(pictures)
