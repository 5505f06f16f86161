"""Numbers as a reader wants them."""

from __future__ import annotations

import pytest

from distill.report.wording import (
    between,
    capitalized,
    compared,
    count,
    decimal,
    duration,
    megabytes,
    milliseconds,
    percent,
    points,
    printable,
)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (percent(0.6732), "67.3 %"),
        (percent(None), "\N{EN DASH}"),
        (points(0.051, signed=True), "+5.1"),
        (points(-0.051), "\N{MINUS SIGN}5.1"),
        (points(-0.0001), "0.0"),
        (between({"value": 0.0, "low": -0.005, "high": 0.01}), "\N{MINUS SIGN}0.5 to 1.0"),
        (megabytes(940_000), "0.94"),
        (megabytes(9_996_000), "10.0"),
        (megabytes(351_000_000), "351"),
        (milliseconds(1.2345), "1.23"),
        (decimal(1e-6, 4), "<0.0001"),
        (decimal(0.0, 4), "0.0000"),
        (decimal(-0.25), "\N{MINUS SIGN}0.250"),
        (capitalized("accuracy"), "Accuracy"),
        (capitalized("macro F1"), "Macro F1"),
        (capitalized("mIoU"), "mIoU"),
        (capitalized(""), ""),
        (count(1773), "1,773"),
        (count(None), "\N{EN DASH}"),
        (duration(3.24), "3.2 s"),
        (duration(59.97), "1 min 0 s"),
        (duration(843), "14 min 3 s"),
        (duration(7500), "2 h 5 min"),
    ],
)
def test_reads_like(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("limit", "found", "expected"),
    [
        (4.0, 2.9, ("4", "2.9")),
        (0.9, None, ("0.9", "not measured")),
        (0.9, 0.89999999, ("0.9", "0.89999999")),
        (0.9, 0.9, ("0.9", "0.9")),
    ],
)
def test_limit_and_finding_can_be_told_apart(limit: float, found: float | None, expected: tuple[str, str]) -> None:
    assert compared(limit, found) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bild\u00a0été 玻璃.jpg", "Bild\u00a0été 玻璃.jpg"),
        ("a\nb\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("\u202egpj", "\ufffdgpj"),
        ("\udce9", "\ufffd"),
        ("क्\u200dष", "क्\u200dष"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable("a\nb", keep="\n") == "a\nb"
