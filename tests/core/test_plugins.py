"""Finding plugins by reading their files, and importing them by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distill.core import plugins
from distill.core.errors import UserError

KINDS = sorted(plugins.PACKAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_sorted_and_each_has_a_line_of_help(kind: plugins.Kind) -> None:
    names = plugins.names(kind)
    assert names == sorted(names)
    for name in names:
        assert plugins.summary(kind, name).endswith(".")


def test_the_first_plugins_are_there() -> None:
    assert {"python", "timm"} <= set(plugins.names("teachers"))
    assert "timm" in plugins.names("students")
    assert "classification" in plugins.names("tasks")


def test_listing_imports_neither_torch_nor_any_plugin() -> None:
    program = (
        "import sys\n"
        "from distill.core import plugins\n"
        "for kind in plugins.PACKAGES:\n"
        "    for name in plugins.names(kind):\n"
        "        assert plugins.summary(kind, name), name\n"
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'pyarrow', 'tensorflow', 'onnx'} & set(sys.modules)\n"
        "own = {f'{package}.{name}' for kind, package in plugins.PACKAGES.items() for name in plugins.names(kind)}\n"
        "print(sorted(heavy | (own & set(sys.modules))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_reading_a_config_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "from distill.config_file import recipes, load_config\n"
        "load_config(recipes()['quickstart'])\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("kind", ["teachers", "students", "tasks"])
def test_every_plugin_defines_config_and_build(kind: plugins.Kind) -> None:
    for name in plugins.names(kind):
        module = plugins.load(kind, name)
        assert callable(module.Config)
        assert callable(module.build)
        assert module.__doc__


def test_an_unknown_name() -> None:
    with pytest.raises(UserError) as caught:
        plugins.load("teachers", "tinm")
    known = ", ".join(plugins.names("teachers"))
    assert str(caught.value) == f"found no teacher 'tinm' (did you mean 'timm'?); known: {known}"


def test_nothing_is_suggested_for_a_name_that_is_like_no_other() -> None:
    assert plugins.suggest("zebra", ["timm", "python"]) == ""
    assert plugins.suggest("pyhton", ["timm", "python"]) == " (did you mean 'python'?)"
    assert plugins.suggest("timm", []) == ""


@pytest.mark.parametrize("name", ["..", ".timm", "yaml.", "os.path.nothing", "a b.c"])
def test_a_dotted_path_that_leads_nowhere(name: str) -> None:
    with pytest.raises(UserError, match=f"cannot import {name!r}"):
        plugins.load("teachers", name)
