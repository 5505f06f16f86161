"""`distill track`: a finished run in a local MLflow store."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from distill.core.errors import RunFolderError, UserError
from distill.core.run import Run
from distill.mlflow_log import log_run
from tests.workplace import Workplace

mlflow = pytest.importorskip("mlflow")


def test_a_run_is_logged_once(finished: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run(finished.root / "runs/teacher")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        first = log_run(run, None, "here")
        assert log_run(run, None, "here") == first
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
        logged = client.get_run(first)
        assert logged.info.status == "FINISHED" and logged.data.params["train.epochs"] == "4"
        report = json.loads((run.root / "report.json").read_text())
        student = next(row for row in report["rows"] if row["name"] == "student")
        assert logged.data.metrics["student.test_accuracy"] == student["score"]["value"]
        assert [point.step for point in client.get_metric_history(first, "student.loss")] == [1, 2, 3, 4]
        assert "report.html" in {file.path for file in client.list_artifacts(first)}
        assert "export/student.int8.tflite" in {file.path for file in client.list_artifacts(first, "export")}


def test_what_cannot_be_logged(finished: Workplace, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.root / "runs/teacher", run, ignore=shutil.ignore_patterns("export", "tensorboard"))
    with pytest.raises(UserError, match="MLflow does not take"):
        log_run(Run(run), str(tmp_path / "no" / "store"), "here")
    (run / "report/stage.json").unlink()
    with pytest.raises(RunFolderError, match="the stage report is not finished"):
        log_run(Run(run), None, "here")
