"""`teacher.yaml`: closed sections, every mistake at once with file and line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError, create_model, field_validator, model_validator
from pydantic_core import ErrorDetails

from distill.core import plugins
from distill.core.errors import ConfigError, Problem, UserError
from distill.core.files import write_text
from distill.core.settings import (
    FromCommandLine,
    InputPath,
    Settings,
    StudentSettings,
    TeacherSettings,
    TrainSettings,
)
from distill.recipe import RecipeName, fill_in

__all__ = ["ArtifactName", "RunConfig", "load_config", "recipe_path", "recipes", "save_config"]

LossName = Literal["kl", "dist", "dkd", "js", "hard"]
ArtifactName = Literal["tflite-float32", "tflite-float16", "tflite-int8", "onnx-float32", "onnx-int8"]


class DataSettings(Settings):
    """Where the images are. Either folders, or one manifest."""

    unlabeled: InputPath | list[InputPath] = []
    """Folders of images that the teacher labels; searched recursively."""
    labeled: InputPath | None = None
    """Folder with one sub-folder a class: truth for training, for fitting a teacher and for the control."""
    validation: InputPath | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Folder with one sub-folder a class, or a share of `labeled` (by hash of content): calibration, model choice."""
    test: InputPath | Annotated[float, Field(gt=0, lt=1)] | None = None
    """Folder with one sub-folder a class, or a share of `labeled`: the golden standard, never trained on."""
    demo: Literal["digits"] | None = None
    """Use scikit-learn's 1,797 handwritten digits, written into the run folder as images: a demonstration."""
    manifest: InputPath | None = None
    """CSV or Parquet with the columns path, label, split (train, validation, test; val is understood), optionally group
    and labelled (0: the label of this training image is hidden from training and only used to check pseudo-labels)."""
    classes: list[str] | None = None
    """Classes in the order of the outputs. Default: the names found in labels, sorted."""
    resize: Literal["center_crop", "squash"] = "center_crop"
    """How an image becomes a square: the largest centred square, or all of it with its sides squeezed."""
    mirror: bool = True
    """A mirrored image keeps its class; false for text, digits and signs."""
    max_megapixels: Annotated[float, Field(gt=0)] = 100.0
    """Larger images are left out: they may be decompression bombs."""

    @field_validator("classes")
    @classmethod
    def _each_class_once(cls, names: list[str] | None) -> list[str] | None:
        twice = sorted({name for name in names or () if (names or []).count(name) > 1})
        if twice:
            raise ValueError(f"each class once, but {', '.join(twice)} is there several times")
        return names

    @model_validator(mode="after")
    def _sources(self) -> DataSettings:
        if mistake := _mistake_in_sources(dict(self)):
            raise ValueError(mistake)
        return self


def _mistake_in_sources(data: Mapping[str, Any]) -> str | None:
    """What is wrong with the choice of sources, if anything; also asked where values have mistakes of their own."""
    unlabeled, labeled, validation, test, manifest, demo = (
        data.get(key) if data.get(key) != [] else None
        for key in ("unlabeled", "labeled", "validation", "test", "manifest", "demo")
    )
    shares = [share for share in (validation, test) if isinstance(share, (int, float))]
    if demo is not None:
        if any(source is not None for source in (unlabeled, labeled, validation, test, manifest)):
            return "demo brings its own images: leave out manifest, unlabeled, labeled, validation and test"
    elif manifest is not None:
        if any(source is not None for source in (unlabeled, labeled, validation, test)):
            return "manifest names every image: leave out unlabeled, labeled, validation and test"
    elif validation is None:
        return (
            "no validation set: give `validation` a folder with one sub-folder a class, or a share of `labeled`"
            " such as 0.2"
        )
    elif labeled is None and shares:
        return "a share as `validation` or `test` is taken from `labeled`, which is missing"
    elif labeled is None and unlabeled is None:
        return "nothing to learn from: give `unlabeled`, `labeled` or both"
    elif all(0 < share < 1 for share in shares) and sum(shares) >= 1:
        return f"`validation` and `test` take {sum(shares):.0%} of `labeled`: leave some of it to train on"
    return None


class LabelSettings(Settings):
    """What is asked of the teacher, once, before training."""

    views: Annotated[int, Field(ge=1, le=1024)] = 16
    """Views an image: the fixed view, its mirror image, then random crops. The student sees exactly these."""
    top_k: Annotated[int, Field(ge=1, le=255)] = 10
    """Classes kept a view; the rest is kept as one tail mass."""


class TrustSettings(Settings):
    """Which of the teacher's answers the student learns from. The store keeps all: changing this asks nothing anew."""

    calibrate: bool = False
    """Soften or sharpen the answers by the temperature that fits the labelled validation images best."""
    keep: Literal["all", "precision", "adaptive"] = "all"
    """Unlabelled images to learn from: all; those above the confidence that reached `precision` on validation; or those
    above a threshold of their class that follows the teacher's confidence in it (FreeMatch)."""
    precision: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of right answers that `keep: precision` asks for on validation."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How far rare classes are weighted up: 0 not at all, 1 until all classes weigh the same."""


class DistillSettings(TrainSettings):
    """How the student learns from the stored labels."""

    loss: LossName = "kl"
    """What distance from the teacher's answer is minimised: kl, dist (arXiv 2205.10536), dkd (arXiv 2203.08679), js
    (Jensen-Shannon) or hard (cross-entropy to its most probable class)."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Softens both answers before they are compared; 1 on consistent views (arXiv 2106.05237)."""

    truth_weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the truth in the target of an image that has one; the teacher's answer fills the rest."""


class ExportSettings(Settings):
    """Which files are made and how they are proven."""

    files: Annotated[list[ArtifactName], Field(min_length=1)] = [
        "tflite-float32",
        "tflite-float16",
        "tflite-int8",
        "onnx-float32",
        "onnx-int8",
    ]
    """Files to make."""
    calibration_images: Annotated[int, Field(ge=4)] = 128
    """Training and validation images that set the int8 ranges (min/max); never from the test set."""
    min_float_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Share of images on which a float file must name the student's class, or it is rejected."""
    min_int8_agreement: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The same for an int8 file."""


class BenchmarkSettings(Settings):
    """How the files are timed on this machine."""

    threads: list[Annotated[int, Field(ge=1)]] = [1, 2]
    """Thread counts to time."""
    rounds: Annotated[int, Field(ge=1)] = 5
    """Interleaved rounds over all files."""
    runs: Annotated[int, Field(ge=5)] = 40
    """Timed inferences a file and round."""
    warmup: Annotated[int, Field(ge=1)] = 10
    """Inferences a file and round that are not counted."""


class Gates(Settings):
    """Promises; where one does not hold the command ends with exit code 3 and all files are kept."""

    max_size_mb: Annotated[float, Field(gt=0)] | None = None
    """Largest int8 TFLite file, in megabytes of 1,000,000 bytes."""
    min_test_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    """Smallest test accuracy of the int8 TFLite file."""
    max_int8_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest test accuracy lost from the student to the int8 TFLite file."""
    max_partitions: Annotated[int, Field(ge=1)] | None = None
    """Most delegated partitions of the int8 TFLite file."""


class RunConfig(Settings):
    """One run: images + teacher -> student -> verified files."""

    task: str = "classification"
    """What the answers mean: `distill ls tasks`."""
    data: DataSettings
    """The images."""
    teacher: SerializeAsAny[TeacherSettings]
    """One kind of teacher and its name: `{timm: convnext_base.fb_in22k_ft_in1k}`; see `distill ls teachers`."""
    student: SerializeAsAny[StudentSettings]
    """One family of students and its name: `{timm: mobilenetv4_conv_small}`; see `distill ls students`."""
    recipe: RecipeName = "auto"
    """How the student is taught, where `train` does not say: auto is what did best when it was measured
    (docs/recipes.md), the others are there to be compared with it."""
    labels: LabelSettings = LabelSettings()
    """What is asked of the teacher."""
    trust: TrustSettings = TrustSettings()
    """Which of its answers count."""
    train: DistillSettings = DistillSettings()
    """How the student learns."""
    export: ExportSettings = ExportSettings()
    """Which files are made."""
    benchmark: BenchmarkSettings = BenchmarkSettings()
    """How they are timed."""
    gates: Gates = Gates()
    """What must hold at the end."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random."""
    output: Path
    """Run folder. Default: runs/ and the name of the config file."""

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str) -> str:
        if name not in plugins.names("tasks"):
            raise ValueError(plugins.unknown_plugin("tasks", name))
        return name


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
    document = _Document(path.name)
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
    write_text(path, yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2, and 2026-11-20 is text: a fine name for a folder."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what `_Loader` would not read as text, such as a class named 1e3."""

    yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )


_Place = tuple[str | int, ...]
"""Keys and numbers of entries on the way to a value."""


class _Document:
    """A YAML file with the line of every key, and the mistakes found so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[_Place, int] = {}
        self.overridden: set[_Place] = set()
        self.problems: list[Problem] = []

    def parse(self, text: str) -> dict[str, Any]:
        try:
            loader = _Loader(text)
            try:
                node = loader.get_single_node()
                values = {} if node is None else self._value(loader, node, ())
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{self.name}:{mark.line + 1}" if mark else self.name
            raise ConfigError(self.name, [Problem(where, "", f"not YAML: {_reason(error)}")]) from error
        if not isinstance(values, dict):
            raise ConfigError(self.name, [Problem(f"{self.name}:1", "", "expected keys and values, `task: …`")])
        return values

    def _value(self, loader: _Loader, node: yaml.Node, at: _Place, inside: tuple[yaml.Node, ...] = ()) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        if any(node is outer for outer in inside):
            raise yaml.MarkedYAMLError(None, None, "an anchor that holds itself", node.start_mark)
        inside = (*inside, node)
        if isinstance(node, yaml.MappingNode) and node.tag == loader.DEFAULT_MAPPING_TAG:
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                    raise yaml.MarkedYAMLError(None, None, "expected a plain word as key", key_node.start_mark)
                key = key_node.value  # as it is written: `no:` and `1:` are names here
                if key in found:
                    first = self.lines[(*at, key)]
                    self._add((*at, key), f"the key is there twice, first in line {first}", line)
                    continue
                self.lines[(*at, key)] = line
                found[key] = self._value(loader, value_node, (*at, key), inside)
            return found
        if isinstance(node, yaml.SequenceNode) and node.tag == loader.DEFAULT_SEQUENCE_TAG:
            return [self._value(loader, item, (*at, index), inside) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN_TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise yaml.MarkedYAMLError(None, None, f"the tag {tag} is refused, expected plain values", node.start_mark)
        try:
            return loader.construct_object(node)
        except ValueError:  # such as 0x_, which looks like a number
            return node.value

    def override(self, values: dict[str, Any], text: str) -> None:
        """Apply one `a.b=value`."""
        dotted, equals, raw = text.partition("=")
        if not equals or not all(dotted.split(".")):
            self.problems.append(Problem("--set", text, "expected key=value, for example train.epochs=3"))
            return
        try:
            value = _from_command_line(yaml.load(raw, Loader=_Loader))  # noqa: S506 - _Loader is a SafeLoader
        except yaml.YAMLError:
            value = FromCommandLine(raw)
        words = dotted.split(".")
        keys: list[str | int] = []
        section: Any = values
        for word in words:
            key: str | int = word
            if isinstance(section, list):
                if not (word.isascii() and word.isdecimal() and int(word) < len(section)):
                    numbers = f"0 to {len(section) - 1}" if section else "but it is empty"
                    mistake = f"`{keys[-1]}` is a list: expected the number of an entry, {numbers}"
                    self.problems.append(Problem("--set", dotted, mistake))
                    return
                key = int(word)
            elif not isinstance(section, dict):
                mistake = f"`{keys[-1]}` is no section: nothing can be set below it"
                self.problems.append(Problem("--set", dotted, mistake))
                return
            keys.append(key)
            if len(keys) == len(words):
                section[key] = value
            elif (section.get(key) if isinstance(section, dict) else section[key]) is None:
                section[key] = {}
            section = section[key]
        self.overridden.add(tuple(keys))

    def report(
        self, errors: Sequence[ErrorDetails], values: Mapping[str, Any], model: type[BaseModel], of: _Place = ()
    ) -> None:
        """Turn pydantic's errors into sentences, one for each place.

        Args:
            errors: of validating the values.
            values: as they were written.
            model: what they were meant to be.
            of: the place of these values in the document.
        """
        places: dict[_Place, list[ErrorDetails]] = {}
        for details in errors:
            at = tuple(part for part in details["loc"] if not _is_branch(part))
            places.setdefault(at, []).append(details)
        for at, found in places.items():
            deeper = any(other[: len(at)] == at and other != at for other in places)
            if not (deeper and all(details["type"] in _WRONG_FORM for details in found)):
                self._add((*of, *at), _sentence(found, _keys_of(model, at[:-1])))
        if of:
            return
        data = values.get("data")
        if (
            isinstance(data, dict)
            and ("data",) not in places
            and not any(
                at[:1] == ("data",) and details["type"] == "extra_forbidden" for at, (details, *_) in places.items()
            )
        ):
            mistake = _mistake_in_sources(data)  # the model's own check is skipped where a value is wrong
            if mistake:
                self._add(("data",), mistake)

    def _add(self, at: _Place, message: str, line: int | None = None) -> None:
        key = ".".join(str(part) for part in at)
        if any(p.key == key and p.message == message for p in self.problems):
            return
        if any(at[: len(keys)] == keys or (at == keys[: len(at)] and at not in self.lines) for keys in self.overridden):
            where = "--set"
        else:
            known = next((self.lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in self.lines), 1)
            where = f"{self.name}:{line or known}"
        self.problems.append(Problem(where, key, message))

    def order(self, problem: Problem) -> int:
        """Line of a problem; those of `--set` come last."""
        _, _, line = problem.where.rpartition(":")
        return int(line) if line.isdigit() else 1 << 30


_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "float", "int", "null", "str")}
_WRONG_FORM = {"list_type", "path_type"}  # of a union of both, the branch that was meant says more

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "keys and values",
    "path_type": "a path",
    "string_type": "text",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
}


def _sentence(errors: Sequence[ErrorDetails], known: Sequence[str]) -> str:
    """What is wrong at one place; a value that fits none of several allowed forms gives several errors."""
    first = errors[0]
    if first["type"] == "extra_forbidden":
        hint = plugins.suggest(str(first["loc"][-1]), known)
        return f"unknown key{hint}; known: {', '.join(known)}" if known else f"unknown key{hint}"
    if first["type"] == "missing":
        return "this key is needed"
    for details in errors:
        if details["type"] == "value_error":
            return str(details.get("ctx", {}).get("error", details["msg"]))
    forms = [_EXPECTED.get(e["type"], e["msg"]).format(**e.get("ctx", {})) for e in errors]
    found = first["input"]
    expected = " or ".join(forms).replace("true or false or", "true, false or")
    if isinstance(found, str):
        expected += plugins.suggest(found, re.findall("'([^']*)'", expected))
    elif forms == ["text"] and isinstance(found, (bool, int, float)):
        expected += "; put it in quotes"
    shown = "nothing" if found is None else str(found).lower() if isinstance(found, bool) else repr(found)
    return f"found {shown if len(shown) <= 80 else shown[:77] + '...'}, expected {expected}"


def _reason(error: yaml.YAMLError) -> str:
    """Why a text is no YAML, in one line."""
    problem = getattr(error, "problem", None)
    if problem is None:
        return str(error).split("\n", 1)[0]
    if "'\\t'" in problem:
        problem += " (indent with spaces)"
    context, mark = getattr(error, "context", None), getattr(error, "context_mark", None)
    return f"{context} in line {mark.line + 1}, {problem}" if context and mark else problem


def _from_command_line(value: Any) -> Any:
    if isinstance(value, str):
        return FromCommandLine(value)
    if isinstance(value, list):
        return [_from_command_line(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _from_command_line(item) for key, item in value.items()}
    return value


def _is_branch(part: str | int) -> bool:
    """Pydantic names the branch of a union in `loc`; such names are not keys of the user's file."""
    return isinstance(part, str) and (
        part in {"float", "int", "bool", "str", "constrained-float", "constrained-int"} or "[" in part or "(" in part
    )


def _keys_of(model: type[BaseModel], at: Sequence[str | int]) -> list[str]:
    """Keys that the section at this place takes."""
    current: Any = model
    for part in at:
        annotation = current.model_fields[part].annotation if hasattr(current, "model_fields") else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        if current is None:
            return []
    return [str(field.validation_alias or name) for name, field in current.model_fields.items()]


def _model_for(values: dict[str, Any], document: _Document, folder: Path) -> type[RunConfig]:
    """RunConfig with the teacher and student sections that the named plugins define."""
    fields: dict[str, Any] = {}
    kinds: dict[str, plugins.Kind] = {"teacher": "teachers", "student": "students"}
    for section, kind in kinds.items():
        found = _plugin_of(values.get(section), (section,), kind, document)
        if found is None:
            values.pop(section, None)
            fields[section] = (Any, None)
            continue
        fields[section] = (SerializeAsAny[found], ...)  # type: ignore[valid-type,misc]
        for key in _teachers_in(found):
            if isinstance(values[section].get(key), list):
                members = enumerate(values[section][key])
                values[section][key] = [_teacher_of(v, (section, key, n), document, folder) for n, v in members]
    return create_model("RunConfig", __base__=RunConfig, **fields)


def _plugin_of(found: Any, at: _Place, kind: plugins.Kind, document: _Document) -> Any:
    """`Config` of the plugin that a section names by one of its keys; None after reporting a mistake."""
    known, noun = plugins.names(kind), kind[:-1]
    example = f"{{{known[-1]}: NAME}}"
    if not isinstance(found, dict) or not found:
        document._add(at, f"expected one kind of {noun} and its name, for example {example}")
        return None
    chosen = [key for key in found if key in known or "." in key]
    if len(chosen) > 1:
        document._add(at, f"found several kinds of {noun} ({', '.join(chosen)}), expected one")
        return None
    if not chosen:
        base = TeacherSettings if kind == "teachers" else StudentSettings
        named = [key for key in found if key not in base.model_fields]
        if not named:
            document._add(at, f"which {noun}? Its kind and name are missing, for example {example}")
            return None
        likely = next((key for key in named if plugins.suggest(key, known)), named[0])
        document._add((*at, likely), plugins.unknown_plugin(kind, likely))
        return None
    try:
        config = plugins.load(kind, chosen[0]).Config
    except UserError as error:
        document._add((*at, chosen[0]), str(error))
        return None
    if "." not in chosen[0]:
        return config
    return _config_of_user_module(config, chosen[0])


def _teachers_in(config: type[BaseModel]) -> list[str]:
    """Keys of a section whose values are lists of teachers."""
    return [name for name, field in config.model_fields.items() if field.annotation in _LISTS_OF_TEACHERS]


_LISTS_OF_TEACHERS = (list[TeacherSettings], list[SerializeAsAny[TeacherSettings]])
_OF_THE_WHOLE = ("batch_size", "precision", "test_time_augmentation")


def _teacher_of(found: Any, at: _Place, document: _Document, folder: Path) -> TeacherSettings:
    """A teacher among several; a mere placeholder after reporting its mistakes."""
    config = _plugin_of(found, at, "teachers", document)
    if config is None:
        return TeacherSettings()
    if nested := _teachers_in(config):
        document._add((*at, nested[0]), "several teachers cannot be one of several: list them here themselves")
        return TeacherSettings()
    values = dict(found)
    for key in _OF_THE_WHOLE:
        if values.pop(key, default := TeacherSettings.model_fields[key].default) != default:
            document._add((*at, key), f"is said once for all teachers: put it beside `{at[-2]}`")
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
