"""What a search may set, and to what: `1e-4..1e-2:log`, `2..8`, or choices such as `4,8`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from distill.core.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["DEFAULT", "Parameter", "read_space"]

DEFAULT: Final[Mapping[str, str]] = {
    "train.lr": "1e-4..5e-3:log",
    "train.weight_decay": "0.005..0.2:log",
    "train.mixup": "0,0.2,0.4",
    "train.temperature": "1,2,4",
    "train.truth_weight": "0..1",
}
"""What is searched where nobody says otherwise: none of it asks the teacher anything anew."""

_RANGE = re.compile(r"\s*(?P<low>\S+?)\s*\.\.\s*(?P<high>[^\s:]+)\s*(?P<log>:\s*log)?\s*")


@dataclass(frozen=True)
class Parameter:
    """One setting of a search: a range, or choices.

    Args:
        key: dotted, as `--set` takes it.
        low: first value of a range.
        high: its last value.
        log: whether the range is searched by its logarithm.
        choices: values in YAML, where it is no range.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[str, ...] = ()

    @property
    def distribution(self) -> BaseDistribution:
        """For Optuna; whole numbers where both ends are."""
        from optuna import distributions as of

        if self.choices:
            return of.CategoricalDistribution(self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return of.IntDistribution(self.low, self.high, log=self.log)
        return of.FloatDistribution(self.low, self.high, log=self.log)

    def override(self, value: Any) -> str:
        """As `--set` takes it; a choice is YAML already."""
        return f"{self.key}={value if isinstance(value, str) else json.dumps(value)}"


def read_space(given: Sequence[str], in_config: Mapping[str, Any]) -> list[Parameter]:
    """The space of a search.

    Args:
        given: `--space` options, `key=…`; they take the place of all else.
        in_config: `tune.space` of the config, its values a range as text or a list of choices.

    Raises:
        UserError: names each mistake.
    """
    texts: dict[str, Any] = {}
    problems = []
    for option in given:
        key, equals, text = option.partition("=")
        if not equals or not key.strip() or not text.strip():
            problems.append(f"--space {option}: expected key=range or key=choices, such as train.lr=1e-4..1e-2:log")
        else:
            texts[key.strip()] = text
    if not given:
        texts = dict(in_config) or dict(DEFAULT)
    found = []
    for key, text in texts.items():
        try:
            found.append(_parameter(key, text))
        except ValueError as error:
            problems.append(f"{key}: {error}")
    if problems:
        raise UserError("the space of the search has mistakes:\n" + "\n".join(f"  {problem}" for problem in problems))
    return found


def _parameter(key: str, text: Any) -> Parameter:
    if isinstance(text, str) and (range_ := _RANGE.fullmatch(text)):
        low, high, log = _number(range_["low"]), _number(range_["high"]), bool(range_["log"])
        if not low < high:
            raise ValueError(f"found {text!r}, expected a range that goes up, such as 1e-4..1e-2:log")
        if log and low <= 0:
            raise ValueError(f"found {text!r}, but a range above zero alone has a logarithm")
        return Parameter(key, low, high, log)
    values = text.split(",") if isinstance(text, str) else [json.dumps(value) for value in text]
    choices = tuple(value.strip() for value in values)
    if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
        raise ValueError(f"found {text!r}, expected a range such as 1e-4..1e-2:log, or different choices such as 4,8")
    return Parameter(key, choices=choices)


def _number(text: str) -> float:
    try:
        value = yaml.safe_load(text)
        value = value if isinstance(value, int) and not isinstance(value, bool) else float(text)  # 1e-4 is text in YAML
    except (ValueError, yaml.YAMLError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"found {text!r}, expected a number")
    number: float = value
    return number
