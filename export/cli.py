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
) -> None:
    """Write a TFLite file, open it in another process, compare it with the student, score it.

    An int8 file is made in the cheapest way that loses no more on validation than `gates.max_int8_drop` allows (half a
    point without that gate).
    """
    _end(lambda: _one(run, "tflite", quantize.value if quantize else "float32", rung, compare=compare))


@app.command("onnx")
def onnx(
    quantize: Annotated[
        _OnnxPrecision | None, typer.Option(help="`--quantize` alone means int8 (QDQ). Left out: float32.")
    ] = None,
    run: _RunOption = None,
) -> None:
    """Write an ONNX file, open it in another process, compare it with the student, score it."""
    _end(lambda: _one(run, "onnx", quantize.value if quantize else "float32"))


@app.command("files")
def files(run: _RunOption = None) -> None:
    """Write every file that the run's config names; rejected ones are kept and listed with their reason."""

    def work() -> None:
        from export.files import Exporter

        for made in Exporter(_open(run), _progress()).make_all():
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of tables.")] = False,
) -> None:
    """Open any file in a process of its own: what it takes and gives, where it runs, whether it answers as another."""

    def work() -> None:
        from distill.core.errors import ArtifactError
        from distill.core.run import Run
        from export.verify import describe
        from export.verify import verify as look

        progress = _progress()
        found = look(file, progress, run=Run(run) if run else None, against=against, images=images)
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
    made = Exporter(folder, progress).make(artifact_name(format_name, precision), rung=rung, compare=compare)
    if len(made.get("ladder", {}).get("rungs", [])) > 1:
        progress.console.print(ladder_table(made["ladder"], made["metric"]))
    _print_made({"status": "ok", **made}, folder.folder("export"))


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
