"""Quantization-aware distillation: a finished student learns on, from the same stored answers, while it is rounded.

Weights and ranges settle where rounding costs least (Jacob et al. 2018, arXiv 1712.05877; learned ranges: Esser et al.
2020, arXiv 1902.08153). Export asks for it on the last rung of its ladder, by a folder of the run: `plan.json` and
`start.safetensors` say where to begin, `weights.safetensors` and `ranges.json` are what is handed to the quantizer.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distill.checkpoint import load_weights, save_weights
from distill.core.errors import RunFolderError
from distill.core.files import digest_of, read_json, sha256_of, write_json
from distill.core.metrics_log import MetricsLog
from distill.fake_quantization import Int8Backbone, fake_quantized
from distill.stages import Work
from distill.train import train
from distill.trained_student import load_student

__all__ = ["learn_on"]


def learn_on(work: Work) -> Path:
    """Do what `plan.json` in the folder `qat` asks for, unless that is done.

    Returns:
        The folder.

    Raises:
        RunFolderError: nothing is asked for.
    """
    folder = work.run.folder("export") / "qat"
    asked, start, done = folder / "plan.json", folder / "start.safetensors", folder / "ranges.json"
    if not asked.is_file() or not start.is_file():
        raise RunFolderError(f"{asked} does not exist; `distill export tflite --quantize --rung 4` writes it")
    plan: dict[str, Any] = read_json(asked)
    config = work.config
    train_settings = config.train.model_dump(mode="json", exclude={"workers", "devices"})
    key = digest_of({"plan": plan, "start": sha256_of(start), "train": train_settings, "seed": config.seed})
    if done.is_file() and read_json(done)["key"] == key:
        return folder
    training = folder / "training"
    if not (training / key).exists():  # what is left of a training that began elsewhere
        shutil.rmtree(training, ignore_errors=True)
        training.mkdir(parents=True)
        (training / key).touch()
    manifest, cache = work.manifest(), work.cache()
    task = work.task(manifest)
    student, _ = load_student(work.run)
    load_weights(student.backbone, start)
    network = fake_quantized(student, plan["float_layers"], plan["ranges"])
    backbone = network.backbone
    assert isinstance(backbone, Int8Backbone)
    backbone.learn_ranges()
    examples, _ = work.lessons_of_teacher(manifest, task, training, network.image_size)
    settings = config.train.model_copy(
        update={
            "epochs": plan["epochs"],
            "lr": plan["lr"],
            "warmup_epochs": 0.2,
            "batch_norm": "frozen",
            "probe": False,
            "patience": plan["epochs"],
            "precision": "float32",
        }
    )
    with ExitStack() as stack:
        train(
            network,
            examples,
            manifest.of("validation", labelled=True),
            task,
            settings,
            task.loss(config),
            training,
            stage="int8",
            seed=config.seed,
            cache=cache,
            resize=config.data.resize,
            metrics=MetricsLog(work.run.root / "metrics.jsonl"),
            progress=work.progress,
            keep_classifier=True,
            decoded=work.decoded(stack, manifest, cache, network.image_size),
        )
    save_weights(backbone.inner, folder / "weights.safetensors")
    write_json(done, {"key": key, "ranges": backbone.ranges})
    return folder
