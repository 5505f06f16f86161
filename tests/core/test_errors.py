"""The tree of exceptions and the exit codes it stands for."""

from __future__ import annotations

import re

import pytest

from distill.core import errors
from distill.core.errors import ConfigError, DistillError, Problem

KINDS = [name for name in errors.__all__ if name != "Problem"]


@pytest.mark.parametrize("name", KINDS)
def test_every_error_stands_in_the_tree_with_its_exit_code(name: str) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, DistillError)
    drawn = re.search(rf"[├└]── {name} +(\d)  ", errors.__doc__ or "")
    if name != "DistillError":
        assert drawn is not None
        assert kind.exit_code == int(drawn[1])


def test_a_gate_that_does_not_hold_is_told_apart_from_wrong_input() -> None:
    assert errors.GateFailed.exit_code == 3
    assert {kind.exit_code for kind in errors.UserError.__subclasses__()} == {2}


def test_a_config_error_tells_all_problems_in_order() -> None:
    problems = [Problem("a.yaml:3", "seed", "found 'x'"), Problem("--set", "", "expected key=value")]
    error = ConfigError("a.yaml", problems)
    assert str(error) == "a.yaml has 2 mistakes:\n  a.yaml:3: seed: found 'x'\n  --set: expected key=value"
    assert error.problems == tuple(problems)
    assert str(ConfigError("a.yaml", problems[:1])).startswith("a.yaml has 1 mistake:\n")
