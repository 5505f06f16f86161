"""Reading and writing `teacher.yaml`: every mistake at once with file and line."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, create_model

from distill.config import RunConfig
from distill.core import plugins
from distill.core.errors import ConfigError, UserError
from distill.core.files import write_text
from distill.core.settings import Settings, StudentSettings, TeacherSettings
from distill.recipe import fill_in
from distill.yaml_document import Document, Place, YamlDumper

__all__ = ["load_config", "recipe_path", "recipes", "save_config"]


def recipes() -> dict[str, Path]:
    """Ready configs that come with the package, by name."""
    folder = plugins.folder("teachers") / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_path(name: str) -> Path:
    """The config file that a user means: a path, or the name of a recipe.

    Raises:
        UserError: neither exists.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = recipes()
    if name in known:
        return known[name]
    raise UserError(
        f"found no config file {path.absolute()} and no recipe {name!r}{plugins.suggest(name, known)};"
        f" recipes: {', '.join(known)}; `distill init FOLDER` writes a config"
    )


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a config.

    Args:
        path: YAML file. Paths in it are relative to its folder; those of a recipe to the current folder.
        overrides: `a.b=value` as given to `--set`, value in YAML; paths relative to the current folder.

    Raises:
        ConfigError: all mistakes, each with file and line.
        UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    document = Document(path.name)
    values = document.parse(text)
    for override in overrides:
        document.override(values, override)
    fill_in(values)
    folder = Path.cwd() if path in recipes().values() else path.parent.absolute()
    values.setdefault("output", str(Path("runs") / path.stem))
    if isinstance(values["output"], str):
        values["output"] = str(Path.cwd() / Path(values["output"]).expanduser())
    model = _model_for(values, document, folder)
    config: RunConfig | None = None
    try:
        config = model.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        document.report(error.errors(include_url=False), values, model)
    if config is None or document.problems:
        raise ConfigError(str(path), sorted(document.problems, key=document.order))
    return config


def save_config(config: RunConfig, path: Path) -> None:
    """Write the resolved config, every default spelt out; `load_config` reads it back to an equal one."""
    values = config.model_dump(mode="json", by_alias=True)
    write_text(path, yaml.dump(values, Dumper=YamlDumper, sort_keys=False, allow_unicode=True))


def _model_for(values: dict[str, Any], document: Document, folder: Path) -> type[RunConfig]:
    """RunConfig with the teacher and student sections that the named plugins define."""
    fields: dict[str, Any] = {}
    kinds: dict[str, plugins.Kind] = {"teacher": "teachers", "student": "students"}
    task = values.get("task", RunConfig.model_fields["task"].default)
    for section, kind in kinds.items():
        found = _plugin_of(values.get(section), (section,), kind, document, task)
        if found is None:
            values.pop(section, None)
            fields[section] = (Any, None)
            continue
        fields[section] = (SerializeAsAny[found], ...)  # type: ignore[valid-type,misc]
        for key in _teachers_in(found):
            if isinstance(values[section].get(key), list):
                members = enumerate(values[section][key])
                values[section][key] = [_teacher_of(v, (section, key, n), document, folder, task) for n, v in members]
    return create_model("RunConfig", __base__=RunConfig, **fields)


def _plugin_of(found: Any, at: Place, kind: plugins.Kind, document: Document, task: Any) -> Any:
    """`Config` of the plugin that a section names by one of its keys; None after reporting a mistake."""
    known, noun = plugins.names(kind), kind[:-1]
    fitting = [name for name in known if task in plugins.tasks_of(kind, name)] or known
    example = f"{{{fitting[-1]}: NAME}}"
    if not isinstance(found, dict) or not found:
        document.add(at, f"expected one kind of {noun} and its name, for example {example}")
        return None
    chosen = [key for key in found if key in known or "." in key]
    if len(chosen) > 1:
        document.add(at, f"found several kinds of {noun} ({', '.join(chosen)}), expected one")
        return None
    if not chosen:
        base = TeacherSettings if kind == "teachers" else StudentSettings
        named = [key for key in found if key not in base.model_fields]
        if not named:
            document.add(at, f"which {noun}? Its kind and name are missing, for example {example}")
            return None
        likely = next((key for key in named if plugins.suggest(key, known)), named[0])
        document.add((*at, likely), plugins.unknown_plugin(kind, likely))
        return None
    try:
        config = plugins.load(kind, chosen[0]).Config
    except UserError as error:
        document.add((*at, chosen[0]), str(error))
        return None
    if "." not in chosen[0]:
        if chosen[0] not in fitting:
            document.add((*at, chosen[0]), f"is no {noun} for {task}; these are: {', '.join(fitting)}")
        return config
    return _config_of_user_module(config, chosen[0])


def _teachers_in(config: type[BaseModel]) -> list[str]:
    """Keys of a section whose values are lists of teachers."""
    return [name for name, field in config.model_fields.items() if field.annotation in _LISTS_OF_TEACHERS]


_LISTS_OF_TEACHERS = (list[TeacherSettings], list[SerializeAsAny[TeacherSettings]])
_OF_THE_WHOLE = ("batch_size", "precision", "test_time_augmentation")


def _teacher_of(found: Any, at: Place, document: Document, folder: Path, task: Any) -> TeacherSettings:
    """A teacher among several; a mere placeholder after reporting its mistakes."""
    config = _plugin_of(found, at, "teachers", document, task)
    if config is None:
        return TeacherSettings()
    if nested := _teachers_in(config):
        document.add((*at, nested[0]), "several teachers cannot be one of several: list them here themselves")
        return TeacherSettings()
    values = dict(found)
    for key in _OF_THE_WHOLE:
        if values.pop(key, default := TeacherSettings.model_fields[key].default) != default:
            document.add((*at, key), f"is said once for all teachers: put it beside `{at[-2]}`")
    try:
        member: TeacherSettings = config.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        document.report(error.errors(include_url=False), values, config, at)
        return TeacherSettings()
    return member


@lru_cache
def _config_of_user_module(config: type[Settings], dotted: str) -> type[Settings]:
    """A user's module has its dotted path as key, with any value; its own keys are those of its Config."""
    return create_model(
        config.__name__,
        __base__=config,
        __module__=config.__module__,
        plugin=(Any, Field(default=None, validation_alias=dotted, serialization_alias=dotted)),
    )
