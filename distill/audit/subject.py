"""What is audited: the images that a config, a run or a folder names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill.config import DataSettings, MaskSettings, RunConfig
from distill.config_file import load_config, recipe_path
from distill.core.errors import DataError, RunFolderError, UserError
from distill.core.run import Run
from distill.data.candidate import Candidate
from distill.data.demo import with_demo
from distill.data.mask_image import survey
from distill.data.sources import find
from distill.init import look

__all__ = ["Subject", "open_subject"]


@dataclass(frozen=True)
class Subject:
    """A set of images to audit.

    Args:
        kind: what named it.
        name: of the config, run or folder.
        task: what truth is.
        data: where the images are.
        config: None where a folder was named.
        run: the run folder of this config, None where there is none.
        output: folder that the audit is written to by default.
    """

    kind: Literal["config", "run", "folder"]
    name: str
    task: str
    data: DataSettings
    config: RunConfig | None
    run: Run | None
    output: Path

    def candidates(self) -> list[Candidate]:
        """All files that are named.

        Raises:
            DataError: an empty folder, a folder without truth where truth is needed, a bad manifest.
        """
        return find(self.data, self.task)


def open_subject(what: str, changes: Sequence[str] = ()) -> Subject:
    """What a user means by a path or name.

    Args:
        what: a teacher.yaml or the name of a recipe, a run folder, or a folder of images.
        changes: `a.b=value` for a config.

    Raises:
        UserError: it is none of these, or a mistake in the config.
    """
    path = Path(what)
    if path.is_dir():
        if not (path / "run.json").exists():
            if changes:
                raise UserError("--set changes a config, but a folder of images was named")
            return _folder(path)
        run = Run(path)
        if not (path / "config.yaml").is_file():
            raise RunFolderError(f"{path} has no config.yaml; `distill run` writes it")
        config = load_config(path / "config.yaml", changes).model_copy(update={"output": path.absolute()})
        kind: Literal["config", "run"] = "run"
    else:
        config = load_config(recipe_path(what), changes)
        kind = "config"
        exists = (config.output / "run.json").exists() or config.data.demo is not None
        found = Run.create(config.output) if exists else None
        if found is None:
            output = Path("audits") / config.output.name
            return Subject(kind, config.output.name, config.task, config.data, config, None, output)
        run = found
    if config.data.demo is not None:
        config = with_demo(config)
    return Subject(kind, config.output.name, config.task, config.data, config, run, run.root / "audit")


def _folder(path: Path) -> Subject:
    """Its splits by the names of its sub-folders, as `distill init` understands them."""
    found = look(path)
    parts = found.parts()
    if not parts:
        raise DataError(f"found no image in {path.absolute()}")
    # No validation set is needed here, which the section itself would ask for.
    values: dict[str, Any] = {key: folder.absolute() for key, folder in parts.items()}
    data = DataSettings.model_construct(**values)
    if found.masks:
        data = data.model_copy(update={"masks": _masks(find(data, found.task))})
    name = path.absolute().resolve().name or "images"
    return Subject("folder", name, found.task, data, None, None, Path("audits") / name)


def _masks(candidates: Sequence[Candidate]) -> MaskSettings:
    """Each value or colour that nothing names becomes a class of that name."""
    sources = [c.mask for c in candidates if c.mask is not None]
    files = [s.path for s in sources if not s.item and not s.path.lower().endswith(".json") and not s.labelmap]
    seen = survey(files)
    if seen.colors:
        return MaskSettings(colors={color: color for color in seen.colors})
    return MaskSettings(values={str(value): f"value {value}" for value in seen.values if value != 255})
