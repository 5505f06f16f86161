"""Data of demonstrations, real and without a download, written into the run folder as images."""

from __future__ import annotations

from distill.config import DataSettings, RunConfig
from distill.data.digits import DIGITS, write_digits
from distill.data.scenes import CLASSES, SCENES, write_scenes

__all__ = ["images_in_demo", "with_demo"]


def with_demo(config: RunConfig) -> RunConfig:
    """The same config with the demonstration's folders in place of `data.demo`; the images are written once."""
    folder = config.output / "images"
    if not folder.is_dir():
        (write_scenes if config.data.demo == "scenes" else write_digits)(folder)
    values = {**config.data.model_dump(mode="json"), "demo": None, "leaks": "drop"}  # digits look like one another
    values |= {name: str(folder / name) for name in ("unlabeled", "labeled", "validation", "test")}
    if config.data.demo == "scenes":
        values["classes"] = list(CLASSES)
    return config.model_copy(update={"data": DataSettings.model_validate(values)})


def images_in_demo(config: RunConfig) -> int:
    """How many images it will have."""
    return sum(SCENES.values()) if config.data.demo == "scenes" else DIGITS
