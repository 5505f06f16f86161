"""A YAML file with the line of every key, in which all mistakes are collected and said as sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from distill.config import mistake_in_sources
from distill.core import plugins
from distill.core.errors import ConfigError, Problem
from distill.core.settings import FromCommandLine

__all__ = ["Document", "Place", "YamlDumper"]


class YamlLoader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2, and 2026-11-20 is text: a fine name for a folder."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class YamlDumper(yaml.SafeDumper):
    """Puts in quotes what `YamlLoader` would not read as text, such as a class named 1e3."""

    yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _side in (YamlLoader, YamlDumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
    )


Place = tuple[str | int, ...]
"""Keys and numbers of entries on the way to a value."""

_MOST_VALUES = 100_000  # 1,000 classes are 1,000 values; aliases of aliases can be 9 to the power of 9 in a few lines


class Document:
    """A YAML file with the line of every key, and the mistakes found so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Place, int] = {}
        self.overridden: set[Place] = set()
        self.problems: list[Problem] = []
        self._values = 0

    def parse(self, text: str) -> dict[str, Any]:
        try:
            loader = YamlLoader(text)
            try:
                node = loader.get_single_node()
                values = {} if node is None else self._value(loader, node, ())
            finally:
                loader.dispose()
        except RecursionError:
            raise ConfigError(self.name, [Problem(self.name, "", "not YAML: nested too deeply")]) from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{self.name}:{mark.line + 1}" if mark else self.name
            raise ConfigError(self.name, [Problem(where, "", f"not YAML: {_reason(error)}")]) from error
        if not isinstance(values, dict):
            raise ConfigError(self.name, [Problem(f"{self.name}:1", "", "expected keys and values, `task: …`")])
        return values

    def _value(self, loader: YamlLoader, node: yaml.Node, at: Place, inside: tuple[yaml.Node, ...] = ()) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        self._values += 1
        if self._values > _MOST_VALUES:
            raise yaml.MarkedYAMLError(None, None, f"more than {_MOST_VALUES} values", node.start_mark)
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
                    self.add((*at, key), f"the key is there twice, first in line {first}", line)
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
            value = _from_command_line(yaml.load(raw, Loader=YamlLoader))  # noqa: S506 - YamlLoader is a SafeLoader
        except (yaml.YAMLError, ValueError, RecursionError):  # such as 0x_, or an anchor that holds itself
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
        self, errors: Sequence[ErrorDetails], values: Mapping[str, Any], model: type[BaseModel], of: Place = ()
    ) -> None:
        """Turn pydantic's errors into sentences, one for each place.

        Args:
            errors: of validating the values.
            values: as they were written.
            model: what they were meant to be.
            of: the place of these values in the document.
        """
        places: dict[Place, list[ErrorDetails]] = {}
        for details in errors:
            at = tuple(part for part in details["loc"] if not _is_branch(part))
            places.setdefault(at, []).append(details)
        for at, found in places.items():
            deeper = any(other[: len(at)] == at and other != at for other in places)
            if not (deeper and all(details["type"] in _WRONG_FORM for details in found)):
                self.add((*of, *at), _sentence(found, _keys_of(model, at[:-1])))
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
            mistake = mistake_in_sources(data)  # the model's own check is skipped where a value is wrong
            if mistake:
                self.add(("data",), mistake)

    def add(self, at: Place, message: str, line: int | None = None) -> None:
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
