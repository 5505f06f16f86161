"""`distill init`: look at a folder of photos and write a commented teacher.yaml for it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from distill.core.errors import DataError, UserError
from distill.core.files import write_text
from distill.data.decode import DecodeError, decode
from distill.data.sources import walk

__all__ = ["write_config"]

_NAMES = {
    "labeled": {"train", "labeled", "labelled", "training"},
    "validation": {"val", "valid", "validation"},
    "test": {"test", "testing"},
    "unlabeled": {"unlabeled", "unlabelled", "photos", "pool", "unsorted"},
}
_SAMPLE = 50  # images opened to learn their sizes


@dataclass
class _Found:
    """What a folder turned out to hold: paths for the config, and words for its comments."""

    unlabeled: Path | None = None
    labeled: Path | None = None
    validation: Path | None = None
    test: Path | None = None


def write_config(folder: Path, output: Path, *, replace: bool) -> Iterator[str]:
    """Write a config for a folder.

    The folder may hold class sub-folders (labelled), sub-folders such as train, val, test and unlabeled, or images
    alone (unlabelled).

    Args:
        folder: of photos.
        output: file to write.
        replace: write over an existing file.

    Yields:
        Lines to show: what was found and what to do next.

    Raises:
        DataError: there is no image.
        UserError: the file exists.
    """
    if not folder.is_dir():
        raise DataError(f"found no folder {folder.absolute()}")
    if output.exists() and not replace:
        raise UserError(f"{output} exists already; --force replaces it, --out names another file")
    found = _look(folder)
    counts = {name: _count(path) for name, path in vars(found).items() if path is not None}
    if not any(sum(count.values()) for count in counts.values()):
        raise DataError(f"found no file in {folder.absolute()}")
    sizes = _sizes(folder)
    write_text(output, _config(folder, output, found, counts, sizes))
    for name, count in counts.items():
        classes = (
            "" if name == "unlabeled" else f" in {len(count)} classes ({', '.join(list(count)[:6])}{_more(count)})"
        )
        yield f"{name}: {sum(count.values())} files{classes}"
    yield f"wrote {output}"
    if found.validation is None and found.labeled is None:
        yield "next: name a folder of labelled images as data.validation (one sub-folder a class): without one nobody"
        yield "      knows how good the model is"
    yield f"next: look through it, then `distill check {output}` and `distill run {output}`"


def _look(folder: Path) -> _Found:
    inner = {entry.name: Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."}
    found = _Found()
    for name, path in sorted(inner.items()):
        role = next((role for role, names in _NAMES.items() if name.lower() in names), None)
        if role is not None:
            setattr(found, role, path)
    if found != _Found():
        return found
    if inner:
        return _Found(labeled=folder)
    return _Found(unlabeled=folder)


def _count(folder: Path) -> dict[str, int]:
    """Files by class sub-folder; loose files count under an empty name."""
    classes: Counter[str] = Counter()
    for path in walk(folder):
        relative = Path(path).relative_to(folder)
        classes[relative.parts[0] if len(relative.parts) > 1 else ""] += 1
    return dict(sorted(classes.items()))


def _sizes(folder: Path) -> list[tuple[int, int]]:
    sizes = []
    for number, path in enumerate(walk(folder)):
        if number >= _SAMPLE:
            break
        try:
            sizes.append(decode(path).size)
        except DecodeError:
            continue
    return sorted(sizes, key=min)


def _config(
    folder: Path, output: Path, found: _Found, counts: dict[str, dict[str, int]], sizes: list[tuple[int, int]]
) -> str:
    def named(path: Path) -> str:
        shown = os.path.relpath(path.absolute(), output.absolute().parent)
        return yaml.safe_dump(shown, allow_unicode=True, width=10_000).removesuffix("\n").removesuffix("\n...")

    typical = f"{sizes[len(sizes) // 2][0]}x{sizes[len(sizes) // 2][1]} pixels is typical" if sizes else "sizes unknown"
    lines = [
        f"# Written by `distill init {folder}`: {typical}.",
        "# Check it with `distill check`, then `distill run`. Everything that is not here has a measured default;",
        "# the run folder's config.yaml spells all of them out.",
        "task: classification",
        "",
        "data:",
    ]
    comments = {
        "unlabeled": "the teacher labels these",
        "labeled": "one sub-folder a class: truth for training and for the control",
        "validation": "one sub-folder a class: calibration and model choice",
        "test": "one sub-folder a class: the golden standard, never trained on",
    }
    for name, comment in comments.items():
        path: Path | None = getattr(found, name)
        if path is not None:
            files = sum(counts[name].values())
            lines.append(f"  {name}: {named(path)}  # {files} files; {comment}")
        elif name in {"validation", "test"} and found.labeled is not None:
            lines.append(f"  {name}: 0.2  # a share of `labeled`, by hash of content: adding images moves none")
        elif name == "validation":
            lines.append(
                "  validation: CHANGE-ME  # a folder of labelled images, one sub-folder a class; 200 help a lot"
            )
        else:
            lines.append(f"  # {name}: …  # {comment}")
    lines += [
        "  mirror: true  # false for text, digits and signs, where a mirrored image is another class",
        "",
        "teacher:",
        "  timm: convnext_base.fb_in22k_ft_in1k  # any timm model; `distill ls teachers` for other kinds",
        "  # checkpoint: my-teacher.safetensors  # your own weights",
    ]
    if found.labeled is not None:
        lines.append("  fit: {}  # fine-tune it on the labelled images first; remove if it already knows your classes")
    else:
        lines += [
            "  # The teacher must know your classes: name its outputs, or map them.",
            "  # class_map: {tabby: cat, beagle: dog}  # teacher class -> your class",
        ]
    lines += [
        "",
        "student:",
        "  timm: mobilenetv4_conv_small  # `distill ls students` shows the others",
        "  image_size: 224  # 128 or 160 is two to three times as fast",
        "",
        "# Promises: where one does not hold, `distill run` ends with exit code 3.",
        "gates: {max_size_mb: 4, max_int8_drop: 0.01, max_partitions: 1}",
    ]
    return "\n".join(lines) + "\n"


def _more(count: dict[str, int]) -> str:
    return ", …" if len(count) > 6 else ""
