"""`distill eval`: the predictors of a finished run on another test set, by the one function that scores everything."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, get_args

from distill.config import ArtifactName
from distill.core.errors import UserError
from distill.core.files import digest_of, read_json, write_json
from distill.core.run import MADE_BY
from distill.core.task import Answers, Task
from distill.core.types import Predictor
from distill.data.manifest import Manifest
from distill.data.opener import is_there
from distill.data.sources import listing
from distill.evaluate import evaluate
from distill.golden.document import gather
from distill.golden.subject import Golden, find_in_classes, read_images, settings_for
from distill.labels.leaks import find_shown
from distill.stages import LEAKS, MANIFEST, Work, forward
from distill.teaching import trained_teacher
from distill.torch_predictor import TorchPredictor
from distill.trained_student import load_student

__all__ = ["evaluate_on"]

FOLDER: Final = "eval"
_VERSION: Final = 1  # raised when the same images start to give other answers
_DOCUMENT: Final = "eval.json"


def evaluate_on(
    work: Work, data: Path, names: Sequence[str], groups: Sequence[str], name: str, *, teacher: bool = False
) -> dict[str, Any]:
    """Score predictors of a run on labelled images that it has not seen.

    `eval/NAME` in the run folder gets `data/` (the images as the stage `data` would leave them), a folder a predictor
    with its answers, and `eval.json`. Each is kept by a fingerprint of the images and of what made the predictor.

    Args:
        work: of the run.
        data: a folder as `data.test` takes it, or a manifest.
        names: `student`, `teacher`, `control` or exported files such as `tflite-int8`; empty for the student and every
            file.
        groups: as in `data.groups`.
        name: of the folder in the run.
        teacher: ask the teacher too.

    Returns:
        The document of `eval.json`.

    Raises:
        DataError: images that cannot be used, or classes that the run does not know.
        UserError: there is no such predictor, training has shown every image, or the folder has answers about others.
        RunFolderError: a stage that is needed is not finished.
    """
    run, manifest = work.run, work.manifest()
    task = work.task(manifest)
    made = _predictors(work)
    chosen = [*(["teacher"] if teacher and "teacher" not in names else []), *(names or _default(made))]
    unknown = [each for each in chosen if each not in made]
    if unknown:
        raise UserError(f"--on: the run has no {', '.join(unknown)}; it has {', '.join(made)}")
    place = f"{FOLDER}/{name}"
    if name in {"", ".", ".."} or Path(name).name != name:
        raise UserError(f"--name: found {name!r}, expected a name without folders")
    _refuse_others(run.folder(place) / _DOCUMENT, data)
    with run.lock():
        golden, leaks, facts = _images(work, data, groups, place, task)
        golden.groups()  # says what is wrong before anything is asked
        _ask(work, golden, place, [each for each in made if each in set(chosen)], made)
    said = {each: task.load_answers(run.stage_answers(f"{place}/{each}", "test")) for each in made if each in chosen}
    document = gather(golden, said, own=_own(work, task, said, manifest))
    document = {"run": run.root.name, "name": name, **document, "leaks": leaks, **facts}
    write_json(run.folder(place) / _DOCUMENT, document)
    return document


def _predictors(work: Work) -> dict[str, str]:
    """What a run has, in the order of its table, each with a fingerprint of what made it."""
    run = work.run
    run.summary("student")  # without it there is nothing to ask
    found = {
        name: known
        for name, stage in MADE_BY.items()
        if (known := run.fingerprint(stage)) is not None and "absent" not in run.summary(stage)
    }
    made = [read_json(path) for path in run.folder("export").glob("student.*.json")]
    files = {manifest["name"]: manifest["sha256"] for manifest in made if "sha256" in manifest}  # else rejected
    return found | {name: files[name] for name in get_args(ArtifactName) if name in files}


def _default(made: Collection[str]) -> list[str]:
    return [name for name in made if name == "student" or name not in MADE_BY]


def _refuse_others(document: Path, data: Path) -> None:
    """Keep the answers about one test set from being taken for those about another of the same name."""
    try:
        before = read_json(document)["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if before != str(data.absolute()):
        raise UserError(f"{document.parent} has answers about {before}; give this data another name by --name")


def _images(
    work: Work, data: Path, groups: Sequence[str], place: str, task: Task
) -> tuple[Golden, list[dict[str, Any]], dict[str, Any]]:
    """The images without those that training has shown, these, and what else is to be said of them."""
    run, stage = work.run, f"{place}/data"
    settings = settings_for(data, groups, task.class_names, work.config.data)
    candidates = find_in_classes(settings, work.config.task, "--data")
    fingerprint = digest_of(
        {
            "version": _VERSION,
            "listing": listing(candidates),
            "settings": [settings.masks.model_dump(mode="json"), settings.max_megapixels, settings.classes],
            "run": work.manifest().digest(),
        }
    )
    if run.done(stage, fingerprint) is None:
        folder = run.begin(stage, fingerprint)
        masks = folder / "masks" if task.by_pixel else None
        manifest = read_images(candidates, settings, masks, "--data", work.progress)
        manifest, leaks, gone = _without_shown(work, manifest)
        manifest.save(folder / MANIFEST)
        write_json(folder / LEAKS, leaks)
        run.finish(stage, fingerprint, 0.0, {"digest": manifest.digest(), "gone": gone})
    manifest = Manifest.load(run.folder(stage) / MANIFEST)
    leaks = read_json(run.folder(stage) / LEAKS)
    if not manifest.of("test", labelled=True):
        raise UserError(
            f"--data: training has shown what all {len(leaks)} images of {data} show, such as {leaks[0]['path']}"
        )
    counts = manifest.counts()
    facts = {"left_out_by_reason": counts["left_out_by_reason"], "training_images_gone": run.summary(stage)["gone"]}
    golden = Golden(str(data.absolute()), manifest, "test", task, work.config.data.resize, settings)
    return golden, leaks, facts


def _without_shown(work: Work, manifest: Manifest) -> tuple[Manifest, list[dict[str, Any]], int]:
    """Leave out images that a training or validation image shows; how many of these could not be looked at."""
    used = [r for r in work.manifest().records if r.split != "test"]
    there = [r for r in used if is_there(r.path)]
    known = {r.id: r for r in used}
    held_out = manifest.of("test")
    paths = {r.id: r.path for r in held_out}
    same = [{"path": r.path, "of": known[r.id].path, "split": known[r.id].split} for r in held_out if r.id in known]
    others = [r for r in held_out if r.id not in known]
    near = [
        {"path": paths[leak.image], "of": known[leak.of].path, "split": leak.split}
        for leak in find_shown(others, there, work.cache(), work.progress)
    ]
    leaks = sorted([*same, *near], key=lambda leak: leak["path"])
    ids = {path: image for image, path in paths.items()}
    reasons = {ids[leak["path"]]: f"shows what a {leak['split']} image of the run shows" for leak in leaks}
    return manifest.without(reasons), leaks, len(used) - len(there)


def _ask(work: Work, golden: Golden, place: str, names: Sequence[str], made: dict[str, str]) -> None:
    """Keep the answers of each predictor that has not been asked about these images."""
    run, digest = work.run, golden.manifest.digest()
    prints = {name: digest_of([_VERSION, digest, made[name], golden.resize]) for name in names}
    left = [name for name in names if run.done(f"{place}/{name}", prints[name]) is None]
    for name in left:
        run.begin(f"{place}/{name}", prints[name])
    cache = work.cache()
    for name in left:
        if name in MADE_BY:
            predictor = _open(work, name, golden)
            _, answers = evaluate(predictor, golden.task, golden.records, cache, golden.resize, progress=work.progress)
            answers.save(run.stage_answers(f"{place}/{name}", "test"))
            run.finish(f"{place}/{name}", prints[name], 0.0, {"images": len(answers.ids)})
    files = [name for name in left if name not in MADE_BY]
    if files:
        forward(["answer", "--run", str(run.root), "--of", place, *(f"--file={name}" for name in files)])
        for name in files:
            run.finish(f"{place}/{name}", prints[name], 0.0, {"images": len(golden.records)})


def _open(work: Work, name: str, golden: Golden) -> Predictor:
    if name == "teacher":
        return trained_teacher(work.run, work.config, golden.manifest.classes)
    return TorchPredictor(load_student(work.run, MADE_BY[name])[0])


def _own(work: Work, task: Task, names: Collection[str], manifest: Manifest) -> dict[str, dict[str, Any]]:
    """The score of each on the run's own test images; nothing where there are none."""
    if not manifest.of("test", labelled=True):
        return {}
    kept: dict[str, Answers] = {
        name: task.load_answers(path) for name in names if (path := work.run.answers(name, "test")).exists()
    }
    return {name: asdict(task.main(task.score(answers))) for name, answers in kept.items()}
