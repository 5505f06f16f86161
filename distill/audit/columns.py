"""The columns of `audit.parquet`: one row an image file, in the order of the paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

__all__ = ["COLUMNS", "FLAGS", "MEASURED", "Column", "table_of"]


class Column(NamedTuple):
    """A column.

    Args:
        kind: text, whole (a whole number), number, truth (true or false), or parts (a number for each class).
        help: what it says, with unit and range.
    """

    kind: Literal["text", "whole", "number", "truth", "parts"]
    help: str


MEASURED: Final[Mapping[str, str]] = {
    "megapixels": "width * height, millions",
    "aspect": "width / height",
    "bytes_per_pixel": "size of the file / pixels",
    "brightness": "mean luma, 0..1",
    "low": "5th percentile of luma, 0..1: the shadows",
    "high": "95th percentile of luma, 0..1: the lights",
    "contrast": "standard deviation of luma, 0..0.5",
    "red": "mean, 0..1",
    "green": "mean, 0..1",
    "blue": "mean, 0..1",
    "saturation": "mean of (largest - smallest channel) / largest, 0..1",
    "colorfulness": "Hasler and Süsstrunk 2003, divided by 255: 0 grey, 0.3 colourful",
    "entropy": "of the histogram of luma, 0..8 bits",
    "blur": "Crete et al. 2007: 0 sharp .. 1 blurred",
    "ignored": "share of the mask's pixels that are ignored, 0..1",
    "foreground": "share of the mask's other pixels that are not background, 0..1; None where no class is called so",
}
"""Figures of an image that may be outliers, and what they are."""

FLAGS: Final[Mapping[str, str]] = {
    "leak": "shows what an image of a more precious split shows",
    "label_conflict": "a copy has another label or mask",
    "damaged": "cannot be read",
    "copy": "another file has the same bytes",
    "near_copy": "another image of the same split shows the same",
    "tiny": "its short side is small",
    "odd_shape": "much longer than wide, or wider than long",
    "blurry": "no edge is sharp",
    "dark": "even its lights are dark",
    "bright": "even its shadows are bright",
    "low_contrast": "its lights and shadows hardly differ",
    "empty_mask": "its mask holds nothing but background",
    "suspect_label": "its label is probably wrong",
    "suspect_mask": "the run's teacher contradicts its mask",
    "outlier": "one of its figures is far from those of the others",
}
"""What is found of single images: columns that are true or false, and names of findings."""

_MASK: Final[Mapping[str, Column]] = {
    "mask_classes": Column("whole", "classes that occur in the mask"),
    "teacher_iou": Column("number", "mean IoU of the mask and a run's teacher's answer, 0..1; None where it gave none"),
    "shares": Column("parts", "share of each class among the pixels that are not ignored, 0..1: shares['cat']"),
}

COLUMNS: Final[Mapping[str, Column]] = {
    "path": Column("text", "absolute path"),
    "split": Column("text", "train, validation or test; None where the file is left out"),
    "origin": Column("text", "test, validation, labeled or unlabeled: where the file was found"),
    "label": Column("text", "class; None without one, and where masks are the truth"),
    "labelled": Column("truth", "has truth that training may see"),
    "group": Column("text", "from the manifest"),
    "left_out": Column(
        "text", "why a run would not use the file; None where it does (`leak` marks what it leaves out besides)"
    ),
    "id": Column("text", "SHA-256 of the file; None where it cannot be read"),
    "bytes": Column("whole", "size of the file"),
    "width": Column("whole", "upright width, pixels"),
    "height": Column("whole", "upright height, pixels"),
    **{name: Column("number", text) for name, text in MEASURED.items()},
    **_MASK,
    "copies": Column("whole", "number of the group of files with the same bytes; None without copies"),
    "near_copies": Column("whole", "number of the group of images that show the same; None without"),
    "likely_label": Column("text", "what a suspect label probably should be"),
    "label_confidence": Column("number", "probability of a suspect label, 0..1"),
    "outlier_of": Column("text", "the figure by which it is an outlier"),
    "outlier_score": Column("number", "robust z-score of that figure, without sign"),
    **{name: Column("truth", text) for name, text in FLAGS.items()},
}


def table_of(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], *, masks: bool) -> Any:
    """A pyarrow table; a value that a row lacks is missing, a flag that it lacks is false.

    Args:
        rows: values by column.
        classes: in order.
        masks: whether the truth is masks: without, the columns about them are left out.
    """
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "whole": pa.int64(),
        "number": pa.float64(),
        "truth": pa.bool_(),
        "parts": pa.struct([(name, pa.float64()) for name in classes]),
    }
    columns = {}
    for name, column in COLUMNS.items():
        if name in {*_MASK, "ignored", "foreground"} and not masks:
            continue
        default = False if column.kind == "truth" else None
        columns[name] = pa.array([row.get(name, default) for row in rows], type=kinds[column.kind])
    return pa.table(columns)
