"""Numbers as a reader wants them: units, few digits, a dash where nothing was measured."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

__all__ = [
    "NOTHING",
    "between",
    "capitalized",
    "compared",
    "count",
    "decimal",
    "duration",
    "gate",
    "megabytes",
    "milliseconds",
    "percent",
    "points",
    "printable",
    "trimmed",
]

NOTHING = "\N{EN DASH}"
"""What stands where nothing was measured."""

_GATES = {
    "max_size_mb": "size of the int8 file in MB",
    "min_test_accuracy": "accuracy on the test images",
    "min_test_miou": "mIoU on the test images",
    "max_int8_drop": "lost from the student to the int8 file",
    "max_partitions": "partitions of the int8 file",
}
_MINUS = "\N{MINUS SIGN}"
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # many scripts are spelt with them


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one, such as an accuracy: `67.3 %`."""
    return NOTHING if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float | None, *, signed: bool = False) -> str:
    """A difference of two shares in percentage points: `+5.1`."""
    if difference is None:
        return NOTHING
    text = f"{abs(100 * difference):.1f}"
    if text == "0.0":
        return text
    return (_MINUS if difference < 0 else "+" if signed else "") + text


def between(interval: Mapping[str, float] | None) -> str:
    """The bounds of an interval in percent or percentage points: `1.0 to 9.2`; `to`, since a dash looks like minus."""
    return NOTHING if interval is None else f"{points(interval['low'])} to {points(interval['high'])}"


def megabytes(size: float | None) -> str:
    """Bytes as megabytes of 1,000,000 bytes, without the unit."""
    return NOTHING if size is None else _three_digits(size / 1e6)


def milliseconds(value: float | None) -> str:
    """A time in milliseconds with about three digits, without the unit."""
    return NOTHING if value is None else _three_digits(value)


def decimal(value: float | None, digits: int = 3) -> str:
    """A number without unit; one that the digits would show as zero, though it is not, reads `<0.0001`."""
    if value is None:
        return NOTHING
    least = 10.0**-digits
    return f"<{least:.{digits}f}" if 0 < value < least / 2 else f"{value:.{digits}f}".replace("-", _MINUS)


def count(number: int | None) -> str:
    """A whole number with thousands apart: `1,773`."""
    return NOTHING if number is None else f"{number:,}"


def capitalized(text: str) -> str:
    """Text that begins a line: `Macro F1`; a word with capitals of its own stays, as `mIoU` does."""
    return text[:1].upper() + text[1:] if text.partition(" ")[0].islower() else text


def duration(seconds: float) -> str:
    """`3.2 s`, `14 min 3 s`, `2 h 5 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def trimmed(value: float) -> str:
    """A setting as somebody would write it: `0.5`, `20`."""
    return f"{value:g}".replace("-", _MINUS)


def compared(limit: float, found: float | None) -> tuple[str, str]:
    """Limit and finding with as many digits as it takes to see that they differ.

    A gate of 0.9 that failed at 0.89997 must not read `found 0.9, limit 0.9`.
    """
    if found is None:
        return f"{limit:.4g}", "not measured"
    for digits in range(4, 17):
        texts = f"{limit:.{digits}g}", f"{found:.{digits}g}"
        if limit == found or texts[0] != texts[1]:
            break
    return texts


def gate(name: str) -> str:
    """What a gate is about, in words; promises say it themselves."""
    return _GATES.get(name, name)


def printable(value: Any, keep: str = "") -> str:
    """Text in which a replacement character stands for whatever steers a terminal or turns text around.

    File names are bytes in the end: they may hold escape sequences, line breaks and lone surrogates.

    Args:
        value: anything with a text.
        keep: control characters that may stay.
    """
    text = str(value)
    return text if text.isascii() and text.isprintable() else "".join(_visible(c, keep) for c in text)


def _visible(character: str, keep: str) -> str:
    if character in keep or character in _JOINERS:
        return character
    return "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _STEERING else character


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
