"""A run in MLflow: settings, metrics by epoch, scores, report and files. The run folder stays the truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from distill.core.errors import UserError
from distill.core.files import read_json, sha256_of
from distill.core.metrics_log import MetricsLog
from distill.core.run import Run

__all__ = ["log_run"]

_FOLDER = "distill.folder"
_REPORT = "distill.report"
_FILES = ("config.yaml", "environment.json", "metrics.jsonl", "report.json", "report.html", "report.md")
_ARTIFACTS = ("*.tflite", "*.onnx", "*.json")
_LONGEST = 6000  # characters of a parameter, as MLflow allows
_AT_ONCE = 100  # parameters


def log_run(run: Run, uri: str | None, experiment: str) -> str:
    """Log a finished run; the same report of a folder is logged once.

    Args:
        run: whose report is written.
        uri: of an MLflow server or store; an SQLite file `mlflow.db` in the current folder if left out.
        experiment: its name there; made where it does not exist.

    Returns:
        Id of the run in MLflow.

    Raises:
        RunFolderError: the run is not finished.
        UserError: MLflow is not installed, or does not take the run.
    """
    run.summary("report")
    try:
        import mlflow
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise UserError("`distill track` needs MLflow: pip install 'mobile-distill[mlflow]'") from error
    report = read_json(run.root / "report.json")
    folder, digest = str(run.root.resolve()), sha256_of(run.root / "report.json")
    try:
        client = mlflow.MlflowClient(tracking_uri=uri or f"sqlite:///{Path('mlflow.db').absolute()}")
        known = client.get_experiment_by_name(experiment)
        place = known.experiment_id if known else client.create_experiment(experiment)
        for earlier in client.search_runs([place]):
            tags = earlier.data.tags
            if earlier.info.status == "FINISHED" and (tags.get(_FOLDER), tags.get(_REPORT)) == (folder, digest):
                return str(earlier.info.run_id)
        logged = client.create_run(place, run_name=run.root.name, tags={_FOLDER: folder, _REPORT: digest}).info
        settings = _flat(yaml.safe_load((run.root / "config.yaml").read_text(encoding="utf-8")))
        parameters = [Param(key, str(value)[:_LONGEST]) for key, value in settings.items()]
        for at in range(0, len(parameters), _AT_ONCE):
            client.log_batch(logged.run_id, params=parameters[at : at + _AT_ONCE])
        for line in MetricsLog(run.root / "metrics.jsonl").read():
            stage = line.pop("stage").replace(" ", "_")
            step, values = line.pop("epoch"), line
            metrics = [Metric(f"{stage}.{key}", value, logged.start_time, step) for key, value in values.items()]
            client.log_batch(logged.run_id, metrics=metrics)
        for key, value in _scores(report):
            client.log_metric(logged.run_id, key, value)
        for path in (run.root / name for name in _FILES):
            if path.exists():
                client.log_artifact(logged.run_id, str(path))
        for path in sorted({path for kind in _ARTIFACTS for path in run.folder("export").glob(kind)}):
            client.log_artifact(logged.run_id, str(path), "export")
        client.set_terminated(logged.run_id)
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow does not take {run.root}: {error}") from error
    return str(logged.run_id)


def _scores(report: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Figures of the report's rows, as MLflow names them."""
    found: list[tuple[str, float]] = []
    for row in report["rows"]:
        if row["score"]:
            found.append((f"{row['name']}.{report['split']}_{report['metric']['key']}", row["score"]["value"]))
        if row["bytes"]:
            found.append((f"{row['name']}.bytes", row["bytes"]))
        found += [
            (f"{row['name']}.p50_ms_{timing['threads']}_threads", timing["p50_ms"]) for timing in row["latency"] or ()
        ]
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat
