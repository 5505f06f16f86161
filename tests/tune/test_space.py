"""The space of a search: ranges, choices, and every mistake at once."""

from __future__ import annotations

import pytest

from distill.core.errors import UserError
from distill.search.space import DEFAULT, Parameter, read_space


def test_ranges_and_choices() -> None:
    options = ["train.lr=1e-4..1e-2:log", "train.epochs=4..8", "train.mixup=0..0.4", "train.loss=kl, dist", "seed=1,2"]
    assert read_space(options, {"seed": [3, 4]}) == [
        Parameter("train.lr", 1e-4, 1e-2, True),
        Parameter("train.epochs", 4, 8),
        Parameter("train.mixup", 0, 0.4),
        Parameter("train.loss", choices=("kl", "dist")),
        Parameter("seed", choices=("1", "2")),
    ]
    lr, epochs, mixup, loss, _ = read_space(options, {})
    kinds = [type(parameter.distribution).__name__ for parameter in (lr, epochs, mixup, loss)]
    assert kinds == ["FloatDistribution", "IntDistribution", "FloatDistribution", "CategoricalDistribution"]
    assert (lr.override(0.001), epochs.override(5), loss.override("dist")) == (
        "train.lr=0.001",
        "train.epochs=5",
        "train.loss=dist",
    )


def test_the_config_names_a_space_and_the_default_is_one() -> None:
    found = read_space([], {"train.lr": "1e-4..1e-2:log", "train.probe": [True, False], "train.epochs": [2, 4]})
    assert [parameter.choices for parameter in found] == [(), ("true", "false"), ("2", "4")]
    assert [parameter.key for parameter in read_space([], {})] == list(DEFAULT)


def test_all_mistakes_at_once() -> None:
    with pytest.raises(UserError) as caught:
        read_space(["train.lr", "a=2..1", "b=0..1:log", "c=x..y", "d=4", "e=4,4", "f=1..1", "g=1..nan"], {})
    lines = str(caught.value).splitlines()
    assert len(lines) == 9
    assert lines[1] == "  --space train.lr: expected key=range or key=choices, such as train.lr=1e-4..1e-2:log"
    assert "a: found '2..1', expected a range that goes up" in lines[2]
    assert "b: found '0..1:log', but a range above zero alone has a logarithm" in lines[3]
    assert "c: found 'x', expected a number" in lines[4]
    assert all("expected a range such as" in line for line in lines[5:7])
