"""A file is a plugin: its name is the name in the config, its docstring is the help, it defines `Config` and `build`.

Listing reads files without importing them, so `distill ls` needs neither torch nor the plugin's libraries. A name with
a dot is a user's own module and plays by the same rules; the current folder is searched for it first.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from distill.core.errors import UserError

__all__ = [
    "PACKAGES",
    "Kind",
    "build",
    "folder",
    "import_user_module",
    "load",
    "names",
    "suggest",
    "summary",
    "tasks_of",
    "unknown_plugin",
    "user_files",
]

Kind = Literal["teachers", "students", "tasks", "formats", "devices"]
PACKAGES: dict[Kind, str] = {
    "teachers": "teachers",
    "students": "distill.students",
    "tasks": "distill.tasks",
    "formats": "export.formats",
    "devices": "export.devices",
}


def names(kind: Kind) -> list[str]:
    """Names of the built-in plugins of a kind, sorted."""
    return sorted(path.stem for path in folder(kind).glob("*.py") if not path.stem.startswith("_"))


def summary(kind: Kind, name: str) -> str:
    """First line of the plugin's docstring."""
    tree = ast.parse((folder(kind) / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").split("\n", 1)[0]


def tasks_of(kind: Kind, name: str) -> tuple[str, ...]:
    """Tasks that a built-in plugin serves: its annotated constant `TASKS`, read without importing; else all."""
    for node in ast.parse((folder(kind) / f"{name}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "TASKS":
            found: tuple[str, ...] = ast.literal_eval(node.value) if node.value else ()
            return found
    return tuple(names("tasks"))


def load(kind: Kind, name: str) -> ModuleType:
    """Import a plugin by its name, or a user's module by its dotted path.

    Raises:
        UserError: there is no such plugin, its import failed, or it lacks `Config` or `build`.
    """
    if "." in name:
        module = import_user_module(name)
    elif name in names(kind):
        module = importlib.import_module(f"{PACKAGES[kind]}.{name}")
    else:
        raise UserError(unknown_plugin(kind, name))
    missing = [needed for needed in ("Config", "build") if not hasattr(module, needed)]
    if missing:
        raise UserError(f"{name}: a plugin of {kind} defines Config and build; this module lacks {', '.join(missing)}")
    return module


def user_files(settings: object) -> list[Path]:
    """Source files outside the project that decide what a plugin with these settings does."""
    module = sys.modules[type(settings).__module__]
    ours = module.__name__.partition(".")[0] in {package.partition(".")[0] for package in PACKAGES.values()}
    own = [] if ours else [Path(str(module.__file__))]
    watched: list[Path] = getattr(settings, "watched_files", list)()
    return own + watched


def import_user_module(name: str) -> ModuleType:
    """Import a user's module by dotted path, searching the current folder first.

    Raises:
        UserError: the import failed; the text holds the cause.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise UserError(f"cannot import {name!r} ({type(error).__name__}: {error}); looked in {here} first") from error


def unknown_plugin(kind: Kind, name: str) -> str:
    """The sentence for a name that is no plugin of this kind, with a suggestion."""
    return f"found no {kind[:-1]} {name!r}{suggest(name, names(kind))}; known: {', '.join(names(kind))}"


def suggest(word: str, known: Iterable[str]) -> str:
    """' (did you mean X?)', or an empty string where nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def folder(kind: Kind) -> Path:
    """Where the built-in plugins of a kind live; found without importing them."""
    spec = importlib.util.find_spec(PACKAGES[kind])
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {PACKAGES[kind]!r} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def build(settings: object, class_names: Sequence[str]) -> Any:
    """Call `build` of the plugin whose `Config` these settings are."""
    return sys.modules[type(settings).__module__].build(settings, class_names)
