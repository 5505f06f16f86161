"""All figures of answers, against scikit-learn and by hand; groups of a golden set; promises about them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from distill.config import Promise
from distill.core.errors import DataError
from distill.core.task import Profile
from distill.core.types import ImageRecord, softmax
from distill.data.groups import find_groups
from distill.report.golden import check_promises, group_rows, kept_promises, second_opinion
from distill.tasks._mask_answers import MaskAnswers, look
from distill.tasks.classification import Classification, LabelAnswers
from distill.tasks.segmentation import Segmentation

NAMES = ("a", "b", "c", "d", "e", "f", "never")


def answers(images: int = 300, seed: int = 0) -> LabelAnswers:
    """Right more often than not; nothing is of the last class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 6, images)
    logits = rng.normal(0, 1.2, (images, 7)) + 2 * np.eye(7)[truth]
    return LabelAnswers(tuple(f"{n:064x}" for n in range(images)), logits.astype(np.float32), truth)


@pytest.fixture
def task() -> Classification:
    return Classification(NAMES)


def test_figures_are_those_of_scikit_learn(task: Classification) -> None:
    said = answers()
    found = task.profile(said)
    called, probabilities = said.logits.argmax(axis=1), softmax(said.logits)
    expected = {
        "accuracy": metrics.accuracy_score(said.truth, called),
        "top5": metrics.top_k_accuracy_score(said.truth, said.logits, k=5, labels=range(7)),
        "balanced_accuracy": metrics.recall_score(said.truth, called, average="macro", labels=range(6)),
        "macro_precision": metrics.precision_score(said.truth, called, average="macro", zero_division=0),
        "macro_f1": metrics.f1_score(said.truth, called, average="macro", zero_division=0),
        "roc_auc": np.mean([metrics.roc_auc_score(said.truth == c, probabilities[:, c]) for c in range(6)]),
        "pr_auc": np.mean([metrics.average_precision_score(said.truth == c, probabilities[:, c]) for c in range(6)]),
    }
    for key, value in expected.items():
        assert found.figures[key].value == pytest.approx(value), key
    by_class = metrics.classification_report(said.truth, called, labels=range(7), output_dict=True, zero_division=0)
    for place, name in enumerate(NAMES[:6]):
        for key, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            figure = found.classes[name][key]
            assert figure.value == pytest.approx(by_class[str(place)][theirs])
            assert 0 <= figure.low < figure.value < figure.high <= 1
        assert found.sizes[name] == (said.truth == place).sum()
    assert found.classes["never"]["recall"].value is None
    assert "roc_auc" not in found.classes["never"]
    assert found.figures.keys() == task.figures.keys()


def test_calibration(task: Classification) -> None:
    """Half of the answers are 60 % sure, and all right; the others 90 % sure, and half of them right."""
    sure = np.repeat([0.6, 0.9], 50)
    logits = np.log(np.stack([sure, *((1 - sure) / 6 for _ in range(6))], axis=1))
    truth = np.where(np.arange(100) < 75, 0, 1)
    found = task.profile(LabelAnswers(tuple(map(str, range(100))), logits.astype(np.float32), truth))
    assert found.figures["calibration_error"].value == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert np.array(found.reliability) == pytest.approx(np.array([[0.6, 1.0, 0.5], [0.9, 0.5, 0.5]]))


def test_a_macro_figure_has_the_interval_of_the_plain_jackknife(task: Classification) -> None:
    said = answers(60)
    called = said.logits.argmax(axis=1)

    def f1(places: Any) -> float:
        return float(metrics.f1_score(said.truth[places], called[places], average="macro", zero_division=0))

    whole = f1(range(60))
    left = np.array([f1([other for other in range(60) if other != place]) for place in range(60)])
    error = np.sqrt(59 / 60 * ((left - left.mean()) ** 2).sum()) / (whole * (1 - whole))
    odds = np.log(whole / (1 - whole)) + 2.0009954 * np.array([-error, error])
    found = task.profile(said).figures["macro_f1"]
    assert (found.low, found.high) == pytest.approx(tuple(1 / (1 + np.exp(-odds))), rel=1e-6)


def masks(images: int = 12) -> MaskAnswers:
    rng = np.random.default_rng(0)
    looks = []
    for _ in range(images):
        truth = rng.integers(0, 2, (4, 4)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        looks.append(look((3 * np.eye(3)[truth] + rng.normal(0, 1.5, (16, 16, 3))).astype(np.float32), truth))
    return MaskAnswers.of([f"{n:064x}" for n in range(images)], looks)


def test_figures_of_masks_are_those_of_the_score() -> None:
    task, said = Segmentation(["back", "cup", "never"]), masks()
    found, score = task.profile(said), task.score(said)
    assert found.figures["miou"].value == pytest.approx(score.miou.value)
    assert (found.figures["miou"].low, found.figures["miou"].high) == (score.miou.low, score.miou.high)
    assert found.figures["boundary_f"].value == pytest.approx(score.boundary_f)
    for name, figures in found.classes.items():
        assert figures["iou"].value == pytest.approx(score.iou[name])
    counts = said.counts.sum(axis=0)
    assert found.classes["cup"]["precision"].value == pytest.approx(counts[1, 1] / counts[:, 1].sum())
    assert found.classes["cup"]["recall"].value == pytest.approx(counts[1, 1] / counts[1].sum())
    assert found.classes["never"]["recall"].value is None
    right = sum(share * held for _, held, share in found.reliability)
    assert right == pytest.approx(score.pixel_accuracy.value)
    assert found.figures.keys() == task.figures.keys()
    assert all(figures.keys() == task.figures_of_classes.keys() for figures in found.classes.values())


@pytest.mark.parametrize("said", [answers(), masks()])
def test_some_of_the_answers(said: Any) -> None:
    some = said.take([3, 1])
    assert some.ids == (said.ids[3], said.ids[1])
    task = Segmentation(["back", "cup", "never"]) if isinstance(said, MaskAnswers) else Classification(NAMES)
    assert task.score(some).images == 2
    both = task.joined([some, said.take([0])])
    assert task.score(both) == task.score(said.take([3, 1, 0]))


# --- groups and promises ---


def record(path: Path | str, number: int = 0) -> ImageRecord:
    return ImageRecord(f"{number:064x}", str(path), 10, 10, "test", "a")


def data(**settings: Any) -> Any:
    return SimpleNamespace(
        **{"groups": [], "manifest": None, "test": None, "validation": None, "labeled": None} | settings
    )


def test_groups_by_columns(tmp_path: Path) -> None:
    manifest = tmp_path / "index.csv"
    manifest.write_text(
        "path,label,split,light,device\n0.jpg,a,test,day,\n1.jpg,a,test,night,x\nsub/2.jpg,a,test,day,x\n"
    )
    records = [record(tmp_path / name) for name in ("0.jpg", "1.jpg", "sub/2.jpg", "unlisted.jpg")]
    found = find_groups(data(groups=["light", "device"], manifest=manifest), records)
    assert found == {"device=x": [1, 2], "light=day": [0, 2], "light=night": [1]}
    assert find_groups(data(manifest=manifest), records) == {}
    with pytest.raises(DataError, match=r"data\.groups: .*index\.csv lacks the column lamp; found: path, label, split"):
        find_groups(data(groups=["lamp"], manifest=manifest), records)


def test_groups_by_sub_folders(tmp_path: Path) -> None:
    records = [record(tmp_path / name) for name in ("test/cat/night/1.jpg", "test/cat/2.jpg", "test/dog/night/b/3.jpg")]
    found = find_groups(data(groups=["folder"], test=tmp_path / "test"), records)
    assert found == {"night": [0], "night/b": [2]}
    with pytest.raises(DataError, match=r"found light, columns of a manifest, .* expected folder, for sub-folders"):
        find_groups(data(groups=["light"], test=tmp_path / "test"), records)


@pytest.mark.parametrize(
    ("source", "archive"),
    [
        (Path("/data/test.tar"), "/data/test.tar"),
        (Path("/data/test"), "/data/test/000.tar"),
        (Path("/data/[new]"), "/data/[new]/000.tar"),
        ("/data/test/{000..099}.tar", "/data/test/007.tar"),
        ("s3://bucket/test-*.tar", "s3://bucket/test-1.tar"),
        ("s3://bucket/test/", "s3://bucket/test/a.tar"),
    ],
)
def test_groups_by_sub_folders_in_archives(source: Path | str, archive: str) -> None:
    records = [record(f"{archive}!{at}+20/{name}") for at, name in enumerate(("cat/night/1.jpg", "cat/2.jpg", "3.jpg"))]
    assert find_groups(data(groups=["folder"], test=source), records) == {"night": [0]}
    of_classes = [record("/data/test/cat/000.tar!0+20/night/1.jpg"), record("/other/000.tar!0+20/cat/night/1.jpg")]
    assert find_groups(data(groups=["folder"], test=Path("/data/test")), of_classes) == {"night": [0]}


def test_a_second_opinion_that_cannot_be_used(tmp_path: Path, task: Classification) -> None:
    records, manifest = [record(tmp_path / f"{n}.jpg", n) for n in range(3)], tmp_path / "index.csv"
    manifest.write_text("path,label,split,bob,eve\n0.jpg,a,test,axe,\n1.jpg,a,test,,\n2.jpg,a,test,ox,\n")
    assert second_opinion(data(manifest=manifest, second=None), records, task) is None
    for column, sentence in (
        ("bob", r"data\.second: cells of bob are none of .*\n  .*0\.jpg: 'axe'\n  .*2\.jpg: 'ox'"),
        ("eve", r"data\.second: .*index\.csv says nothing about 3 test images in eve"),
        ("amy", r"data\.second: .*index\.csv lacks the column amy; found: path"),
    ):
        with pytest.raises(DataError, match=sentence):
            second_opinion(data(manifest=manifest, second=column), records, task)
    with pytest.raises(DataError, match=r"found bob, a column of a manifest, but there is no data\.manifest"):
        second_opinion(data(second="bob"), records, task)


def test_groups_are_scored_each_for_itself(task: Classification) -> None:
    student, file = answers(), answers(seed=1)
    file = LabelAnswers(student.ids, file.logits + 4 * np.eye(7, dtype=np.float32)[student.truth], student.truth)
    groups = {"few": list(range(20)), "many": list(range(20, 300))}
    few, many = group_rows(groups, {"student": student, "tflite-int8": file}, task)
    assert (few["name"], few["images"], few["small"], many["small"]) == ("few", 20, True, False)
    for row, places in ((few, groups["few"]), (many, groups["many"])):
        for score, said in zip(row["scores"], (student, file), strict=True):
            assert score["value"] == pytest.approx((said.logits.argmax(axis=1) == said.truth)[places].mean())
            assert score["low"] < score["value"] < score["high"] or score["value"] == 1
        assert row["drop"]["value"] == pytest.approx(row["scores"][0]["value"] - row["scores"][1]["value"])


def test_promises(task: Classification) -> None:
    said, groups = answers(), {"night": list(range(80))}
    profile: Profile = task.profile(said.take(groups["night"]))
    recall = profile.classes["b"]["recall"]
    promises = [
        Promise(metric="recall", of="b", group="night", at_least=recall.value - 0.01),
        Promise(metric="recall", of="b", group="night", at_least=recall.value - 0.01, sure=True),
        Promise(metric="accuracy", at_least=0.1, sure=True),
        Promise(metric="calibration_error", at_most=0.0001),
        Promise(metric="recall", of="never", at_least=0),
    ]
    kept = list(kept_promises(promises, said, groups, task))
    assert [gate["holds"] for gate in kept] == [True, False, True, False, False]
    assert [gate["name"] for gate in kept[::3]] == ["recall of b on night", "calibration error"]
    assert kept[1]["found"] == recall.low
    assert kept[1]["detail"] == "at the lower end of the 95 % interval, n = 80"
    assert (kept[0]["detail"], kept[3]["relation"]) == ("n = 80", "at most")
    assert not any(gate["holds"] for gate in kept_promises(promises, None, groups, task))


def test_promises_about_what_there_is_not(task: Classification, tmp_path: Path) -> None:
    records = [record(tmp_path / "test/cat/night/1.jpg")]

    def config(**promise: Any) -> Any:
        promises = [Promise(metric="recall", at_least=0.5, **promise)]
        return SimpleNamespace(
            data=data(groups=["folder"], test=tmp_path / "test"), gates=SimpleNamespace(promises=promises)
        )

    check_promises(config(of="b", group="night"), records, task)
    with pytest.raises(DataError, match=r"gates\.promises: found the class bee, expected a, b, c"):
        check_promises(config(of="bee"), records, task)
    with pytest.raises(DataError, match=r"gates\.promises: found the group day, the test images have night"):
        check_promises(config(of="b", group="day"), records, task)
