"""How a student is taught, by name: settings that stand where a config says nothing.

`auto` is the default and was chosen by evidence: docs/recipes.md has the table of what was tried. The others are there
to be compared with it. A key that the config writes itself wins over its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

__all__ = ["RECIPES", "RecipeName", "fill_in"]

RecipeName = Literal["auto", "hard", "kl-t4", "dist", "dkd", "js", "mixup"]

RECIPES: dict[RecipeName, dict[str, dict[str, Any]]] = {
    "auto": {"train": {"loss": "kl", "temperature": 1.0, "mixup": 0.0}},
    "hard": {"train": {"loss": "hard"}},
    "kl-t4": {"train": {"loss": "kl", "temperature": 4.0}},
    "dist": {"train": {"loss": "dist"}},
    "dkd": {"train": {"loss": "dkd"}},
    "js": {"train": {"loss": "js"}},
    "mixup": {"train": {"loss": "kl", "mixup": 0.4}},
}
"""Section -> key -> value of each recipe."""

assert set(RECIPES) == set(get_args(RecipeName))


def fill_in(values: dict[str, Any]) -> None:
    """Write a recipe's settings into the sections of a config, in place, where these do not say otherwise.

    Args:
        values: as read from YAML; mistakes are left for the validation to tell.
    """
    name = values.get("recipe", "auto")
    settings: Mapping[str, Mapping[str, Any]] = RECIPES.get(name, {}) if isinstance(name, str) else {}  # type: ignore[call-overload]
    for section, preset in settings.items():
        given = values.setdefault(section, {})
        if isinstance(given, dict):
            for key, value in preset.items():
                given.setdefault(key, value)
