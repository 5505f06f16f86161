"""What the student stage leaves for everyone after it: weights and a card to rebuild the network from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.checkpoint import load_weights
from distill.core import plugins
from distill.core.errors import RunFolderError
from distill.core.files import read_json, sha256_of, write_json
from distill.core.run import Run
from distill.core.settings import StudentSettings
from distill.torch_predictor import Network

__all__ = ["CARD", "load_student", "save_card"]

CARD = "student.json"
_WEIGHTS = "weights.safetensors"


def save_card(folder: Path, settings: StudentSettings, network: Network, facts: Mapping[str, Any]) -> None:
    """Write `student.json` beside the weights."""
    write_json(
        folder / CARD,
        {
            "plugin": type(settings).__module__.removeprefix("distill.students."),
            "settings": settings.model_dump(mode="json"),
            "class_names": list(network.class_names),
            "image_size": network.image_size,
            "parameters": sum(p.numel() for p in network.parameters()),
            "weights_sha256": sha256_of(folder / _WEIGHTS),
            **facts,
        },
    )


def load_student(run: Run, stage: str = "student") -> tuple[Network, dict[str, Any]]:
    """Rebuild the trained student (or with `baseline` the control) and its card.

    Raises:
        RunFolderError: the stage is not finished, or its weights are not those it finished with.
    """
    run.summary(stage)
    folder = run.folder(stage)
    try:
        card: dict[str, Any] = read_json(folder / CARD)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / CARD} cannot be read ({error}); `distill run` makes it anew") from error
    weights = folder / _WEIGHTS
    if not weights.is_file() or sha256_of(weights) != card["weights_sha256"]:
        raise RunFolderError(f"{weights} is not the file that training left; delete {folder} and run again")
    module = plugins.load("students", card["plugin"])
    # The initial weights are not needed to rebuild it, and may be gone.
    known = {**card["settings"], "checkpoint": None, "pretrained": False}
    settings = module.Config.model_validate(known, context={"folder": folder})
    network: Network = module.build(settings, card["class_names"])
    load_weights(network.backbone, weights)
    return network.eval(), card
