"""The `distill` command: parse, call one function, print. Imports nothing heavy before a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.core.console import run_command
from distill.core.launcher import launched

if TYPE_CHECKING:
    from rich.console import RenderableType

    from distill.core.run import Run
    from distill.stages import Work

__all__ = ["app", "main"]

app = typer.Typer(
    name="distill",
    help="A big vision model teaches a small int8 one that fits a phone: labelled, trained, exported, verified, timed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A teacher.yaml, or the name of a recipe.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, e.g. train.epochs=3.")
]
_Run = Annotated[Path | None, typer.Option("--run", metavar="RUN", help="Left out: the latest.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_RunArgument = Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Left out: the latest.")]
_Groups = Annotated[
    list[str] | None,
    typer.Option("--groups", metavar="COLUMN", help="Of the manifest, or folder for sub-folders; may be repeated."),
]
_FORWARDED = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


class _Stage(str, Enum):
    data = "data"
    teacher = "teacher"
    labels = "labels"
    student = "student"
    baseline = "baseline"
    export = "export"
    benchmark = "benchmark"
    report = "report"


class _Engine(str, Enum):
    local = "local"
    ray = "ray"


class _Only(str, Enum):
    all = "all"
    unsure = "unsure"
    disagree = "disagree"


class _Format(str, Enum):
    csv = "csv"
    label_studio = "label-studio"
    cvat = "cvat"
    fiftyone = "fiftyone"


class _Listed(str, Enum):
    teachers = "teachers"
    students = "students"
    tasks = "tasks"
    formats = "formats"
    devices = "devices"
    recipes = "recipes"


@app.command("run")
def run(
    config: _Config,
    changes: _Set = None,
    until: Annotated[_Stage | None, typer.Option(help="Last stage to do.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done and estimate what it takes; do nothing.")
    ] = False,
    engine: Annotated[
        _Engine | None, typer.Option(help="Who asks the teacher; short for --set labels.engine=…")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Write one of N shares of the labels, beside processes that write the others."
        ),
    ] = None,
) -> None:
    """Do the whole job, or go on where it stopped: teacher, labels, student, files, proof, numbers, report."""

    def work() -> None:
        from rich.console import Console

        from distill import pipeline
        from distill.config_file import load_config, recipe_path
        from distill.core.errors import UserError
        from distill.labels.share import Share

        asked = [f"labels.engine={engine.value}"] if engine is not None else []
        settings = load_config(recipe_path(config), [*(changes or []), *asked])
        console = Console()
        if shard is not None:
            if dry_run or until not in {None, _Stage.labels}:
                raise UserError(
                    "--shard writes labels and nothing else: leave out --dry-run, and --until but for labels"
                )
            pipeline.label_share(settings, console, Share.parse(shard))
            return
        if dry_run:
            _print_plan(settings, console, measured=True)
            return
        with contextlib.ExitStack() as stack:
            team = None
            if launched() is not None:
                from distill.joining import join
                from distill.ranks import joined

                team = stack.enter_context(joined())
                if team.rank > 0:
                    join(team)
                    return
            folder = None
            try:
                folder = pipeline.run(settings, console, until=until.value if until else None, team=team)
            finally:
                _print_result(settings.output, console, finished=folder is not None)

    _end(work)


@app.command("check")
def check(config: _Config, changes: _Set = None) -> None:
    """Say everything that is wrong with a config, or what it would do."""

    def work() -> None:
        from rich.console import Console

        from distill.config_file import load_config, recipe_path

        console = Console()
        _print_plan(load_config(recipe_path(config), changes or []), console)

    _end(work)


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of photos.")],
    output: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("teacher.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Look at a folder of photos and write a commented teacher.yaml for it."""

    def work() -> None:
        from distill.init import write_config

        for line in write_config(folder, output, replace=force):
            typer.echo(line)

    _end(work)


@app.command("audit")
def audit(
    what: Annotated[
        str, typer.Argument(metavar="CONFIG|FOLDER|RUN", help="A teacher.yaml or recipe, a folder of images, or a run.")
    ],
    changes: _Set = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="List images: \"split == 'test' and blur > 0.5\".")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Left out: audit/ in the run, or audits/NAME.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Look at the images: copies over splits, wrong labels, blur, light, masks. Exit code 3 where splits leak."""

    def work() -> None:
        from rich.console import Console

        from distill.audit import command
        from distill.audit.subject import open_subject
        from distill.core.errors import AuditFailed
        from distill.core.progress import Progress

        subject = open_subject(what, changes or [])
        found = command.audit(subject, output or subject.output, Progress(Console(stderr=True)))
        document = found.document.model_dump(mode="json")
        if where is not None:
            rows, lines = command.listed(found, where)
            if as_json:
                _show({"where": where, "count": len(rows), "images": rows}, (), as_json=True)
            for line in () if as_json else lines:
                typer.echo(line)  # tabs stay, for other programs
        else:
            _show(document, command.describe(found), as_json=as_json)
        if found.document.errors:
            raise AuditFailed("; ".join(f"{error.title}: {error.count}" for error in found.document.errors))

    _end(work)


@app.command("ls")
def ls(what: Annotated[_Listed, typer.Argument(metavar="KIND", help="|".join(k.value for k in _Listed))]) -> None:
    """List teachers, students, tasks, formats, devices or recipes."""

    def work() -> None:
        from rich.console import Console

        from distill.listing import listing

        Console().print(listing(what.value))

    _end(work)


@app.command("report")
def report(run: _Run = None) -> None:
    """Print the comparison table of a finished run and where its report is, with what was audited or measured since."""

    def work() -> None:
        from rich.console import Console

        folder = _open_run(run)
        folder.summary("report")
        _refresh(folder)
        _print_result(folder.root, Console(), finished=True)

    _end(work)


labels = typer.Typer(
    name="labels", help="Look into the label store of a run: what the teacher said, once.", no_args_is_help=True
)
app.add_typer(labels)


@labels.command("stat")
def labels_stat(run: _Run = None, as_json: _Json = False) -> None:
    """Figures: size, classes, confidence, what was left out, and precision against coverage on validation."""

    def work() -> None:
        from distill.labels import map_stat, stat

        folder = _open_run(run)
        if _answers_pixels(folder):
            document = map_stat.gather(map_stat.open_maps(folder), stat.settings_of(folder))
            _show(document, map_stat.describe(document), as_json=as_json)
        else:
            document = stat.gather(stat.open_labels(folder), stat.settings_of(folder))
            _show(document, stat.describe(document), as_json=as_json)

    _end(work)


@labels.command("verify")
def labels_verify(
    run: _Run = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Views, or images, to ask about again. Left out: 512 views, 64 images."),
    ] = None,
) -> None:
    """Read every shard, draw every view again, and ask the teacher again about a sample of whole batches."""

    def work() -> None:
        from rich.console import Console

        from distill.config_file import load_config
        from distill.core.progress import Progress
        from distill.labels import map_stat, map_verify, stat, verify

        folder, console = _open_run(run), Console()
        pixels = _answers_pixels(folder)
        config, progress = load_config(folder.root / "config.yaml"), Progress(console)
        if pixels:
            found = map_verify.verify(map_stat.open_maps(folder), config, sample or 64, progress).describe()
        else:
            found = verify.verify(stat.open_labels(folder), config, sample or 512, progress).describe()
        for line in found:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    _end(work)


@labels.command("show")
def labels_show(
    run: _Run = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.png", help="Left out: labels/sheet.png in the run folder.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=600, help="Images to show.")] = 24,
    name: Annotated[str | None, typer.Option("--class", metavar="NAME", help="Only what is called this.")] = None,
    lowest: Annotated[bool, typer.Option("--lowest", help="Those that the teacher is least sure of.")] = False,
) -> None:
    """Draw views as the student sees them with the teacher's three best answers, or photos beside their masks."""

    def work() -> None:
        from distill.data.batches import ImageCache
        from distill.labels import map_sheet, map_stat, sheet, stat

        folder = _open_run(run)
        pixels = _answers_pixels(folder)
        settings = stat.settings_of(folder)
        path = output if output is not None else folder.folder("labels") / "sheet.png"
        cache, seed = ImageCache(settings["data"]["max_megapixels"]), settings["seed"]
        if pixels:
            maps = map_stat.open_maps(folder)
            pairs = map_sheet.choose(maps, count, name=name, lowest=lowest, seed=seed)
            unsure = map_stat.trusted(maps, settings) or map_sheet.UNSURE
            map_sheet.draw(pairs, path, cache=cache, classes=maps.manifest.classes, unsure=unsure)
        else:
            labelled = stat.open_labels(folder)
            views = sheet.choose(labelled, count, name=name, lowest=lowest, seed=seed)
            size = settings["student"]["image_size"]
            sheet.draw(views, path, cache=cache, image_size=size, classes=labelled.manifest.classes)
        typer.echo(path)

    _end(work)


@labels.command("export")
def labels_export(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="A .parquet or .csv file; where pixels are answered, a new folder.")
    ],
    run: _Run = None,
) -> None:
    """Write every view with the teacher's answer as Parquet or CSV, or every mask as PNG with a list in CSV."""

    def work() -> None:
        from distill.labels import dump, map_dump, map_stat, stat

        folder = _open_run(run)
        if _answers_pixels(folder):
            typer.echo(f"{output}: {map_dump.export(map_stat.open_maps(folder), output)} images")
        else:
            typer.echo(f"{output}: {dump.export(stat.open_labels(folder), output)} views")

    _end(work)


@app.command("doctor")
def doctor(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Left out: the latest.")] = None,
    as_json: _Json = False,
) -> None:
    """Say why the student is no better than the control, by the evidence in the run folder, or that all is well."""

    def work() -> None:
        from distill import doctor
        from distill.evidence import gather
        from distill.labels.stat import settings_of

        folder = _open_run(run)
        diagnosis = doctor.diagnose(gather(folder, settings_of(folder)))
        _show(diagnosis, doctor.describe(diagnosis), as_json=as_json)

    _end(work)


@app.command("sanity")
def sanity(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONFIG|RUN]", help="A teacher.yaml, a recipe or a run folder. Left out: the latest run."
        ),
    ] = None,
    as_json: _Json = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only what also stands before every training.")] = False,
) -> None:
    """Look for the classic bugs of training before it begins: what is expected, what it saw, what usually is wrong."""

    def work() -> None:
        from rich.console import Console

        from distill import sanity_check
        from distill.core.errors import SanityFailed
        from distill.core.run import latest_run
        from distill.sanity import suite

        console = Console(stderr=as_json, highlight=False)
        named = what if what is not None else str(latest_run(Path("runs")))
        found = sanity_check.check(named, quick=quick, console=console, told=lambda name: console.print(f"  {name} …"))
        _show(found, suite.describe(found), as_json=as_json)
        if found["failed"]:
            raise SanityFailed(f"{found['failed']} of {len(found['checks'])} checks failed")

    _end(work)


@app.command("look")
def look(run: _RunArgument = None, as_json: _Json = False) -> None:
    """Draw what the student looks at: its first layer's filters, and heat maps of its worst mistakes."""

    def work() -> None:
        from distill import looking

        opened = _work(run)
        document = looking.look(opened)
        told = [f"{opened.run.root / 'looking'}: {len(document['mistakes'])} heat maps of mistakes"]
        _show(document, told, as_json=as_json)

    _end(work)


@app.command("perturb")
def perturb(
    run: _RunArgument = None,
    images: Annotated[int, typer.Option(min=1, help="At most this many, of the test set.")] = 200,
    as_json: _Json = False,
) -> None:
    """Score teacher, student and int8 file on photos made worse: blur, noise, brightness, JPEG, crop, rotation."""

    def work() -> None:
        from distill import looking

        document = looking.perturb(_work(run), images)
        _show(document, looking.describe(document), as_json=as_json)

    _end(work)


@app.command("review")
def review(
    path: Annotated[Path, typer.Argument(metavar="RUN|FOLDER", help="A run, or photos to sort by --classes.")],
    classes: Annotated[str | None, typer.Option(metavar="A,B,…", help="Of a folder's photos.")] = None,
    only: Annotated[
        _Only,
        typer.Option(help="unsure: the teacher is; disagree: person, teacher and student do not say the same."),
    ] = _Only.all,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Whose answers these are.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Ask every person about every image.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 is any free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    summary: Annotated[
        bool, typer.Option("--summary", help="Say who answered what, and how far people agree.")
    ] = False,
    export: Annotated[Path | None, typer.Option("--export", metavar="FILE", help="Write the answers.")] = None,
    import_: Annotated[Path | None, typer.Option("--import", metavar="FILE", help="Take answers from a file.")] = None,
    kind: Annotated[_Format, typer.Option("--format", help="Of the file.")] = _Format.csv,
    as_json: _Json = False,
) -> None:
    """Sort images, or confirm and correct the teacher's labels and masks, on a local web page by keyboard."""

    def work() -> None:
        from distill.review import command

        subject = command.open_subject(path, only.value, (classes or "").split(",") if classes else [])
        if summary:
            document = command.summary(subject)
            _show(document, command.describe(document), as_json=as_json)
        elif export is not None:
            typer.echo(command.export(subject, export, kind.value, user))
        elif import_ is not None:
            typer.echo(command.import_from(subject, import_, kind.value, user))
        else:
            command.serve(subject, port=port, user=user, everyone=everyone, browser=not no_browser, say=typer.echo)

    _end(work)


@app.command("drift")
def drift(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a finished student.")],
    images: Annotated[list[Path], typer.Argument(metavar="NEW_IMAGES…", help="Folders of new images.", exists=True)],
    reference: Annotated[
        Path | None,
        typer.Option(help="Folder of images to compare with. Left out: the run's validation and test.", exists=True),
    ] = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="Ask the teacher too: where do both disagree?")] = False,
    count: Annotated[int, typer.Option(min=1, max=600, help="Images to name that would teach most.")] = 48,
    false_alarms: Annotated[
        float, typer.Option(min=0.005, max=0.5, metavar="SHARE", help="Chance of an alarm where nothing has moved.")
    ] = 0.01,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Left out: drift/ and the folder's name, in the run.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Have the images moved since the student was judged? Exit code 3 if so; names those that would teach most."""

    def work() -> None:
        from rich.console import Console

        from distill.core.errors import DriftFound
        from distill.core.progress import Progress
        from distill.drift import show
        from distill.drift.gather import gather

        folder = _open_run(run)
        progress = Progress(Console(quiet=as_json))
        found = gather(
            folder, images, progress, reference=reference, teacher=teacher, false_alarms=false_alarms, count=count
        )
        place = output if output is not None else folder.folder("drift") / images[0].resolve().name
        show.write(found, place)
        _show(found.document, show.describe(found.document, place), as_json=as_json)
        if found.document["alarm"]:
            raise DriftFound(show.verdict(found.document))

    _end(work)


@app.command("eval")
def evaluate(
    data: Annotated[
        Path, typer.Option("--data", metavar="OTHER", help="Labelled images: a folder as data.test, or a manifest.")
    ],
    run: _Run = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--on", metavar="NAME", help="student, teacher, control or a file. Left out: the student and all files."
        ),
    ] = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="Ask the teacher too.")] = False,
    groups: _Groups = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Of its folder in eval/. Left out: that of OTHER.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Score the predictors of a finished run on another test set; images that training has shown are left out."""

    def work() -> None:
        from distill.golden.document import describe
        from distill.golden.evaluation import evaluate_on
        from distill.report.wording import printable

        opened, called = _work(run), name or (data.resolve().name if data.is_dir() else data.stem)
        document = evaluate_on(opened, data, names or [], groups or [], called, teacher=teacher)
        _show(document, describe(document), as_json=as_json)
        if not as_json:
            typer.echo(printable(f"kept: {opened.run.root / 'eval' / called / 'eval.json'}"))

    _end(work)


@app.command("score")
def score(
    predictions: Annotated[
        Path, typer.Argument(metavar="PREDICTIONS", help="CSV or Parquet; of pixels also a folder of PNGs.")
    ],
    data: Annotated[
        Path | None, typer.Option("--data", metavar="GOLDEN", help="Labelled images: a folder or a manifest.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="A run: its classes, and without --data its test images."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Of GOLDEN, in the order of the answers. Left out: those found.")
    ] = None,
    groups: _Groups = None,
    as_json: _Json = False,
) -> None:
    """Score anybody's predictions, another program's or a person's, as those of a run are: docs/golden-set.md."""

    def work() -> None:
        from rich.console import Console

        from distill.core.progress import Progress
        from distill.golden.document import describe
        from distill.golden.score import score as scored

        document = scored(
            predictions,
            data,
            None if run is None else _open_run(run),
            Progress(Console(stderr=True)),
            classes=classes.split(",") if classes else None,
            groups=groups,
        )
        _show(document, describe(document), as_json=as_json)

    _end(work)


@app.command("compare")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Run folders; the first is compared with.")],
    output: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write a page, JSON and learning curves here."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Finished runs side by side: scores with paired intervals, what was set otherwise, learning curves."""

    def work() -> None:
        from distill.compare import show
        from distill.compare.gather import gather

        document = gather(runs)
        if output is not None:
            show.write(document, output)
        _show(document, show.describe(document), as_json=as_json)
        if output is not None and not as_json:
            typer.echo(f"compared: {output / 'compare.html'}")

    _end(work)


@app.command("track")
def track(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Left out: the latest.")] = None,
    uri: Annotated[
        str | None, typer.Option("--mlflow", metavar="URI", help="Of a server or store. Left out: mlflow.db here.")
    ] = None,
    experiment: Annotated[str, typer.Option(metavar="NAME", help="Experiment in MLflow.")] = "mobile-distill",
) -> None:
    """Log a finished run in MLflow: settings, metrics by epoch, scores, report and files."""

    def work() -> None:
        from distill.mlflow_log import log_run

        folder = _open_run(run)
        typer.echo(f"{folder.root}: MLflow run {log_run(folder, uri, experiment)}")

    _end(work)


@app.command("export", context_settings=_FORWARDED)
def export(context: typer.Context) -> None:
    """Write TFLite or ONNX from a trained student: `distill export tflite --quantize`."""
    _forward(context.args)


@app.command("bench", context_settings=_FORWARDED)
def bench(context: typer.Context) -> None:
    """Time the exported files on this CPU or another device; the same as `distill export bench`."""
    _forward(["bench", *context.args])


@app.command("demo", context_settings=_FORWARDED)
def demo(context: typer.Context) -> None:
    """Write a page that runs the exported file in a browser; the same as `distill export demo`."""
    _forward(["demo", *context.args])


@app.command("tune")
def tune(
    config: _Config,
    changes: _Set = None,
    space: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=RANGE", help="What to search: train.lr=1e-4..1e-2:log, train.epochs=4,8 …"),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of the search, over all workers.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no trial that would end later.")] = None,
    output: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Left out: the run folder's name and -search.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="URL", help="Of an Optuna storage. Left out: an SQLite file in the folder.")
    ] = None,
) -> None:
    """Search settings that teach the student best on validation: random first, then TPE. The same command goes on.

    Start it several times for several workers. Without --trials and --minutes it makes 20 trials.
    """

    def work() -> None:
        from rich.console import Console

        from distill.config_file import load_config, recipe_path
        from distill.search.show import describe
        from distill.search.study import Budget, search

        path, console = recipe_path(config), Console()
        named = load_config(path, changes or []).output
        folder = output if output is not None else named.with_name(f"{named.name}-search")
        budget = Budget(20 if trials is None and minutes is None else trials, minutes)
        document = search(path, changes or [], space or [], budget, folder.absolute(), console, store=store)
        _show(document, describe(document), as_json=False)

    _end(work)


@app.command("learn-on", hidden=True)
def learn_on(run: _Run = None) -> None:
    """Let a student learn on under fake quantization; asked for by `distill export tflite --quantize` on rung 4."""

    def work() -> None:
        from rich.console import Console

        from distill import learning_on
        from distill.config_file import load_config
        from distill.core.progress import Progress
        from distill.stages import Work

        folder = _open_run(run)
        learning_on.learn_on(Work(load_config(folder.root / "config.yaml"), folder, Progress(Console())))

    _end(work)


def main() -> None:
    """Entry point of `distill` and `python -m distill`."""
    app(prog_name="distill")


def _forward(arguments: list[str]) -> None:
    """Become `python -m export …`: a parent would kill it a moment after Ctrl-C, and a phone has to be put back."""
    os.execv(sys.executable, [sys.executable, "-m", "export", *arguments])  # noqa: S606 - no shell is wanted


def _end(work: Callable[[], None]) -> None:
    raise typer.Exit(run_command(work))


def _open_run(run: Path | None) -> Run:
    from distill.core.run import latest_run
    from distill.pipeline import require_run

    return require_run(run if run is not None else latest_run(Path("runs")))


def _work(run: Path | None) -> Work:
    """A run with its config, silent but for progress on stderr."""
    from rich.console import Console

    from distill.config_file import load_config
    from distill.core.progress import Progress
    from distill.stages import Work

    folder = _open_run(run)
    return Work(load_config(folder.root / "config.yaml"), folder, Progress(Console(stderr=True)))


def _answers_pixels(run: Run) -> bool:
    """Whether a run's label store holds maps, not views."""
    from distill.labels.shards import kind_of

    run.summary("data")
    return kind_of(run.folder("labels")) == "maps"


def _show(document: dict[str, Any], described: Iterable[RenderableType], *, as_json: bool) -> None:
    """One JSON object for programs, or what describes it for people."""
    import json

    from rich.console import Console

    if as_json:
        typer.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    for part in described:
        console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))


def _print_plan(settings: object, console: object, *, measured: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    from distill import pipeline
    from distill.config import RunConfig

    assert isinstance(settings, RunConfig) and isinstance(console, Console)
    planned, images = pipeline.plan(settings, measured=measured)
    table = Table(title=f"{settings.output} ({images} files)", title_justify="left")
    for heading in (
        "stage",
        "state",
        *(("time", "disk", "memory", "worked out from") if measured else ("what it does",)),
    ):
        table.add_column(heading)
    for step in planned:
        if not measured:
            table.add_row(step.name, step.why, pipeline.PURPOSE[step.name])
        elif step.estimate is None:
            table.add_row(step.name, step.why, "", "", "", "")
        else:
            e = step.estimate
            table.add_row(step.name, step.why, _duration(e.seconds), _size(e.disk), _size(e.memory), e.basis)
    console.print(table)
    left = [step.estimate for step in planned if step.estimate]
    if left:
        total = _duration(sum(e.seconds for e in left))
        console.print(f"about {total} on this machine as busy as it is now", highlight=False)


def _refresh(run: Run) -> None:
    """Write the report again where something that it shows came since: a phone's times, an audit, curves."""
    from distill.report.extras import behind

    if behind(run):
        from distill.config_file import load_config
        from distill.report.build import write_report

        write_report(run, load_config(run.root / "config.yaml"))


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def _size(count: int) -> str:
    return (
        f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
    )


def _print_result(folder: Path, console: object, *, finished: bool) -> None:
    """The table and the paths, as far as the run has come."""
    from rich.console import Console

    from distill.core.files import read_json

    assert isinstance(console, Console)
    document = folder / "report.json"
    if not finished or not document.exists():
        return
    from distill.report.table import comparison_table

    console.print(comparison_table(read_json(document)))
    made = {"report": "report.html", "card": "report.md", "model": "export/student.int8.tflite"}
    for name, path in ((name, folder / file) for name, file in made.items()):
        if path.exists():
            console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)
