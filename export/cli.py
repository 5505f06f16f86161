"""The `export` command: write files from a trained student, prove them, time them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.core.console import run_command, with_defaults

if TYPE_CHECKING:
    from distill.core.run import Run

__all__ = ["app", "main"]

app = typer.Typer(
    name="export",
    help="A trained student becomes a file, the file is proven and timed. In bash, `export` is a builtin: use"
    " `distill export …` or `python -m export …`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_RunOption = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="Run folder. Left out: the latest in runs/.")
]


# Instead of a run: a network that somebody brings.
_BRING = "A network that you bring"
_ModelOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        rich_help_panel=_BRING,
        help="module:function that makes a torch module (your code, imported from the current folder and run), or a"
        " .pt2 file of torch.export, or an .onnx file. float32 NCHW in, logits out.",
    ),
]
_WeightsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=_BRING,
        help="Weights for module:function: safetensors, or a torch file of tensors.",
    ),
]
_ExampleOption = Annotated[
    str | None,
    typer.Option(
        metavar="SHAPE", rich_help_panel=_BRING, help="Shape of its input, such as 1x3x224x224; many files say it."
    ),
]
_ImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=_BRING,
        help="Photos of what it will see, no labels: a third calibrates, a third chooses a way, a third is the test.",
    ),
]
_MeanOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_BRING,
        help="What is taken from pixels of 0..1 before it sees them: one number or three, such as 0.485,0.456,0.406."
        " 0 where it takes 0..1 or raw bytes.",
    ),
]
_StdOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_BRING,
        help="What they are then divided by, such as 0.229,0.224,0.225. 1 where it takes 0..1, 1/255 where raw bytes.",
    ),
]
_LabelsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=_BRING, help="Names of its classes, one a line. Left out: numbers."),
]
_IntoOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", rich_help_panel=_BRING, help="Run folder to make. Left out: runs/ and the model's name."
    ),
]


class _TFLitePrecision(str, Enum):
    int8 = "int8"
    float16 = "float16"


class _OnnxPrecision(str, Enum):
    int8 = "int8"


@app.command("tflite")
def tflite(
    quantize: Annotated[
        _TFLitePrecision | None,
        typer.Option(help="`--quantize` alone means int8. Left out: float32."),
    ] = None,
    run: _RunOption = None,
    rung: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=4,
            help="Make the int8 file in this way alone: 1 minimum and maximum of calibration images, 2 searched ranges,"
            " 3 the noisiest layers stay float, 4 the student learns on while it is rounded.",
        ),
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare/--until-gates", help="Make all four, or stop at the first that loses little enough."),
    ] = False,
    model: _ModelOption = None,
    weights: _WeightsOption = None,
    example: _ExampleOption = None,
    images: _ImagesOption = None,
    mean: _MeanOption = None,
    std: _StdOption = None,
    labels: _LabelsOption = None,
    into: _IntoOption = None,
) -> None:
    """Write a TFLite file, open it in another process, compare it with the student, score it.

    An int8 file is made in the cheapest way that loses no more on validation than `gates.max_int8_drop` allows (half a
    point without that gate).

    With --model the network is one that you bring, with a folder of images instead of a run. Its own answers stand for
    the truth: a file is judged by how far it answers as the float network does, and goes to rung 3 at most.
    """
    own = _own_run(run, model, weights, example, images, mean, std, labels, into)
    _end(lambda: _one(own(), "tflite", quantize.value if quantize else "float32", rung, compare=compare))


@app.command("onnx")
def onnx(
    quantize: Annotated[
        _OnnxPrecision | None, typer.Option(help="`--quantize` alone means int8 (QDQ). Left out: float32.")
    ] = None,
    run: _RunOption = None,
    model: _ModelOption = None,
    weights: _WeightsOption = None,
    example: _ExampleOption = None,
    images: _ImagesOption = None,
    mean: _MeanOption = None,
    std: _StdOption = None,
    labels: _LabelsOption = None,
    into: _IntoOption = None,
) -> None:
    """Write an ONNX file, open it in another process, compare it with the student, score it.

    With --model the network is one that you bring: see `export tflite`.
    """
    own = _own_run(run, model, weights, example, images, mean, std, labels, into)
    _end(lambda: _one(own(), "onnx", quantize.value if quantize else "float32"))


@app.command("files")
def files(run: _RunOption = None) -> None:
    """Write every file that the run's config names; rejected ones are kept and listed with their reason."""

    def work() -> None:
        from export.files import Exporter

        folder = _open(run)
        with folder.lock():
            for made in Exporter(folder, _progress()).make_all():
                _print_made(made)

    _end(work)


@app.command("android")
def android(
    run: _RunOption = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder of your app's module. Left out: the sample's, android_sample/app."),
    ] = None,
    file: Annotated[str, typer.Option(metavar="NAME", help="Which file, e.g. tflite-float32.")] = "tflite-int8",
) -> None:
    """Write a model with its manifest, labels and golden pictures into an Android app, and how to use it there."""

    def work() -> None:
        from export.android import bundle, sample_app

        progress = _progress()
        made = bundle(_open(run), into if into is not None else sample_app(), progress, name=file)
        golden = sum(size for name, size in made.sizes.items() if name.startswith("golden/"))
        model = made.manifest["file"]
        for line in (
            f"  {made.folder}",
            f"  {model}: {made.sizes[model] / 1e6:.2f} MB; golden pictures, for tests: {golden / 1e6:.2f} MB",
            f"  how to use it: {made.use}",
        ):
            progress.console.print(line, highlight=False, markup=False, soft_wrap=True)

    _end(work)


@app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TFLite or ONNX file, whoever made it.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="RUN", help="Score it on this run's images and compare it with its student."),
    ] = None,
    against: Annotated[Path | None, typer.Option(metavar="FILE", help="Another file, shown the same images.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Photos to show. Left out: those of the run, else made-up ones."),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="With --run: how far each layer of a TFLite file stands above its error, in decibels."
        ),
    ] = False,
    gpu: Annotated[
        bool,
        typer.Option(
            "--gpu", help="Ask TensorFlow's analyzer whether Android's GPU delegate takes it (extra tensorflow)."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Open any file in a process of its own: what it takes and gives, where it runs, whether it answers as another."""

    def work() -> None:
        from distill.core.errors import ArtifactError
        from distill.core.run import Run
        from export.verify import describe
        from export.verify import verify as look

        progress = _progress()
        opened = Run(run) if run else None
        found = look(file, progress, run=opened, against=against, images=images, layers=layers, gpu=gpu)
        if as_json:
            typer.echo(json.dumps(found))
        else:
            for part in describe(found):
                progress.console.print(part, highlight=False, soft_wrap=True)
        if found["problems"]:
            raise ArtifactError(
                f"{file}: {len(found['problems'])} problem{'s' * (len(found['problems']) != 1)}, see above"
            )

    _end(work)


@app.command("perturb", hidden=True)
def perturb(
    run: _RunOption = None,
    file: Annotated[str, typer.Option(metavar="NAME", help="Which file.")] = "tflite-int8",
    images: Annotated[int, typer.Option(min=1, help="At most this many.")] = 200,
) -> None:
    """Score a file on perturbed photos; asked for by `distill perturb`."""

    def work() -> None:
        from export.perturb import perturb as score

        score(_open(run), file, images, _progress())

    _end(work)


@app.command("answer", hidden=True)
def answer(
    place: Annotated[str, typer.Option("--of", metavar="FOLDER", help="In the run, with data/manifest.parquet.")],
    file: Annotated[list[str], typer.Option(metavar="NAME", help="Which files.")],
    run: _RunOption = None,
) -> None:
    """Ask files about images of another data set; asked for by `distill eval`."""

    def work() -> None:
        from rich.console import Console

        from distill.core.progress import Progress
        from export.answer import answer as ask

        ask(_open(run), place, file, Progress(Console(stderr=True)))

    _end(work)


@app.command("bench")
def bench(
    run: _RunOption = None,
    file: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Time only this file, e.g. tflite-int8.")
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME[:WHICH]", help="Where: one of `distill ls devices`. Left out: this CPU.")
    ] = "cpu",
    benchmark_model: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="With --device adb: TensorFlow's benchmark_model for Android, or a folder with several of them (the"
            " phone's ABI decides); timed beside the sample app.",
        ),
    ] = None,
) -> None:
    """Time the exported files on a device: size, load time, latency, memory, partitions, accuracy."""

    def work() -> None:
        from export.bench import benchmark, result_path
        from export.table import benchmark_table

        folder = _open(run)
        progress = _progress()
        options = {"benchmark_model": benchmark_model} if benchmark_model else {}
        with folder.lock():
            document = benchmark(folder, progress, file, device, options)
        progress.console.print(benchmark_table(document))
        progress.console.print(str(result_path(folder, device)), highlight=False, soft_wrap=True)

    _end(work)


@app.command("arm-setup")
def arm_setup() -> None:
    """Make the emulated ARM machine that `bench --device arm-emulated` counts on, once, in the cache folder."""

    def work() -> None:
        from export.emulated import set_up

        progress = _progress()
        progress.console.print(str(set_up(progress)), highlight=False, soft_wrap=True)

    _end(work)


@app.command("demo")
def demo(
    run: _RunOption = None,
    into: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder to write. Left out: demo/ in the run folder.")
    ] = None,
    file: Annotated[str, typer.Option(metavar="NAME", help="Which TFLite file the page runs.")] = "tflite-int8",
    serve: Annotated[bool, typer.Option("--serve", help="Show it to this machine's browsers until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="For --serve; 0 takes any that is free.")] = 8000,
) -> None:
    """Write a static folder whose page runs the file in a browser: pictures or the camera in, answers and times out."""

    def work() -> None:
        from export.demo import make_demo
        from export.demo import serve as show

        progress = _progress()
        made = make_demo(_open(run), progress, into, file)

        def say(text: str) -> None:
            progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

        say(f"{made.folder}: {made.bytes / 1e6:.1f} MB, of which a browser loads at most {made.fetched / 1e6:.1f} MB")
        if serve:
            show(made.folder, port, lambda address: say(f"{address} (Ctrl-C ends it)"))
        else:
            say("any static web server can show it; on this machine --serve does")

    _end(work)


def main() -> None:
    """Entry point of `export` and `python -m export`."""
    app(args=with_defaults(sys.argv[1:], "--quantize", ["int8", "float16"]), prog_name="export")


def _one(run: Path | None, format_name: str, precision: str, rung: int | None = None, *, compare: bool = False) -> None:
    from distill.core.errors import UserError
    from export.files import Exporter, artifact_name
    from export.table import ladder_table

    if precision != "int8" and (rung or compare):
        raise UserError("--rung and --compare are about int8 files: add --quantize")
    if rung and compare:
        raise UserError("--compare makes the files of all rungs: leave out --rung")
    folder, progress = _open(run), _progress()
    with folder.lock():
        made = Exporter(folder, progress).make(artifact_name(format_name, precision), rung=rung, compare=compare)
    if len(made.get("ladder", {}).get("rungs", [])) > 1:
        progress.console.print(ladder_table(made["ladder"], made["metric"]))
    _print_made({"status": "ok", **made}, folder.folder("export"))


def _own_run(
    run: Path | None,
    model: str | None,
    weights: Path | None,
    example: str | None,
    images: Path | None,
    mean: str | None,
    std: str | None,
    labels: Path | None,
    into: Path | None,
) -> Callable[[], Path | None]:
    """Gives the run folder of what was brought; the given run where nothing was."""

    def work() -> Path | None:
        from distill.core.errors import UserError

        if model is None:
            given = {"weights": weights, "example": example, "images": images, "mean": mean, "std": std}
            alone = [name for name, value in {**given, "labels": labels, "into": into}.items() if value is not None]
            if alone:
                raise UserError(f"--{alone[0]} belongs to a network that you bring: add --model")
            return run
        if run is not None:
            raise UserError("--model brings a network of its own: leave out --run, and say --into for where it goes")
        if images is None:
            raise UserError(
                "--images: a folder of photos is missing, to calibrate and to compare with the float network"
            )
        if mean is None or std is None:
            raise UserError(
                "--mean and --std: say how pixels are normalised, for values 0..1. Most torch weights of ImageNet:"
                " --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225. For -1..1: --mean 0.5 --std 0.5. For 0..1: --mean 0"
                " --std 1. For raw bytes: --mean 0 --std 1/255"
            )
        from export.bring import Brought, bring, channels, parse_shape

        shape = parse_shape(example) if example is not None else None
        numbers = channels(mean, "--mean"), channels(std, "--std")
        brought = Brought(model, weights, shape, *numbers, images, labels)
        return bring(brought, into or Path("runs") / brought.name, _progress()).root

    return work


def _print_made(made: dict[str, Any], folder: Path | None = None) -> None:
    from distill.core.task import Metric

    console = _progress().console
    if made["status"] == "rejected":
        console.print(f"  rejected: {made['reason']}", style="red", highlight=False, markup=False)
        return
    split = "test" if "test" in made["scores"] else "validation"
    score = made["scores"][split]
    metric = Metric(**made["metric"])
    a, drop = score[metric.key], score["drop"]
    partitions = (
        "" if made["partitions"] is None else f", {made['partitions']} partition{'s' * (made['partitions'] != 1)}"
    )
    if made["outside"]:
        partitions += f" (outside: {', '.join(made['outside'])})"
    console.print(
        f"  {made['name']}: {made['bytes'] / 1e6:.2f} MB{partitions}, agrees with the student on"
        f" {score['agreement']:.3f}, {split} {metric.title} {a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}], lost"
        f" {drop['value']:.3f} [{drop['low']:.3f}, {drop['high']:.3f}]",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if folder is not None:
        console.print(f"  {folder / made['file']}", highlight=False, markup=False, soft_wrap=True)


def _open(run: Path | None) -> Run:
    from distill.core.run import Run, latest_run

    return Run(run if run is not None else latest_run(Path("runs")))


def _progress() -> Any:
    from rich.console import Console

    from distill.core.progress import Progress

    return Progress(Console())


def _end(work: Callable[[], None]) -> None:
    raise typer.Exit(run_command(work))
