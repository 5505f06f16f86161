"""The `distill` command: parse, call one function, print. Imports nothing heavy before a command runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from distill.core.console import run_command

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
) -> None:
    """Do the whole job, or go on where it stopped: teacher, labels, student, files, proof, numbers, report."""

    def work() -> None:
        from rich.console import Console

        from distill import pipeline
        from distill.config import load_config, recipe_path

        settings = load_config(recipe_path(config), changes or [])
        console = Console()
        if dry_run:
            _print_plan(settings, console)
            return
        folder = None
        try:
            folder = pipeline.run(settings, console, until=until.value if until else None)
        finally:
            _print_result(settings.output, console, finished=folder is not None)

    _end(work)


@app.command("check")
def check(config: _Config, changes: _Set = None) -> None:
    """Say everything that is wrong with a config, or what it would do."""

    def work() -> None:
        from rich.console import Console

        from distill.config import load_config, recipe_path

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


@app.command("ls")
def ls(what: Annotated[_Listed, typer.Argument(metavar="KIND", help="|".join(k.value for k in _Listed))]) -> None:
    """List teachers, students, tasks, formats, devices or recipes."""

    def work() -> None:
        from rich.console import Console

        from distill.listing import listing

        Console().print(listing(what.value))

    _end(work)


@app.command("report")
def report(
    run: Annotated[Path | None, typer.Option("--run", metavar="RUN", help="Left out: the latest.")] = None,
) -> None:
    """Print the comparison table of a finished run and where its report is."""

    def work() -> None:
        from rich.console import Console

        from distill.core.run import latest_run
        from distill.pipeline import require_run

        folder = require_run(run if run is not None else latest_run(Path("runs")))
        folder.summary("report")
        _print_result(folder.root, Console(), finished=True)

    _end(work)


@app.command("export", context_settings=_FORWARDED)
def export(context: typer.Context) -> None:
    """Write TFLite or ONNX from a trained student: `distill export tflite --quantize`."""
    _forward(context.args)


@app.command("bench", context_settings=_FORWARDED)
def bench(context: typer.Context) -> None:
    """Time the exported files on this CPU; the same as `distill export bench`."""
    _forward(["bench", *context.args])


def main() -> None:
    """Entry point of `distill` and `python -m distill`."""
    app(prog_name="distill")


def _forward(arguments: list[str]) -> None:
    raise typer.Exit(subprocess.run([sys.executable, "-m", "export", *arguments], check=False).returncode)


def _end(work: Callable[[], None]) -> None:
    raise typer.Exit(run_command(work))


def _print_plan(settings: object, console: object) -> None:
    from rich.console import Console
    from rich.table import Table

    from distill import pipeline
    from distill.config import RunConfig

    assert isinstance(settings, RunConfig) and isinstance(console, Console)
    planned, images = pipeline.plan(settings)
    table = Table(title=f"{settings.output} ({images} files)", title_justify="left")
    for heading in ("stage", "state", "what it does"):
        table.add_column(heading)
    for step in planned:
        table.add_row(step.name, step.why, pipeline.PURPOSE[step.name])
    console.print(table)


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
    for name, path in (("report", folder / "report.html"), ("model", folder / "export" / "student.int8.tflite")):
        if path.exists():
            console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)
