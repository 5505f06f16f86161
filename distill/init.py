"""`distill init`: look at a folder of photos and write a commented teacher.yaml for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from distill.config import DataSettings
from distill.core.dense import IGNORED
from distill.core.errors import DataError, UserError
from distill.core.files import write_text
from distill.data.candidate import MaskSource, walk
from distill.data.decode import DecodeError, decode
from distill.data.layouts import find_pairs, layout_of
from distill.data.mask_image import survey
from distill.data.masks import class_names

__all__ = ["Found", "look", "write_config"]

_NAMES = {
    "labeled": {"train", "labeled", "labelled", "training"},
    "validation": {"val", "valid", "validation"},
    "test": {"test", "testing"},
    "unlabeled": {"unlabeled", "unlabelled", "photos", "pool", "unsorted"},
}
_COMMENTS = {
    "unlabeled": "the teacher labels these",
    "labeled": "truth for training and for the control",
    "validation": "calibration and model choice",
    "test": "the golden standard, never trained on",
}
_FORMS = {"classification": "one sub-folder a class", "segmentation": "images with masks"}
_SAMPLE = 50  # images opened to learn their sizes
_MASKS = 200  # masks opened to learn their values
_MOST_COLORS = 40

_TEACHERS = {
    "classification": "  timm: convnext_base.fb_in22k_ft_in1k  # any timm model; `distill ls teachers` for other kinds",
    "segmentation": "  torchvision: deeplabv3_resnet50  # `distill ls teachers` for other kinds",
}
_STUDENTS = {
    "classification": [
        "  timm: mobilenetv4_conv_small  # `distill ls students` shows the others",
        "  image_size: 224  # 128 or 160 is two to three times as fast",
    ],
    "segmentation": [
        "  smp: deeplabv3plus  # `distill ls students` shows the others",
        "  encoder: mobilenetv4_conv_small",
        "  image_size: 256  # smaller is faster, and outlines get coarser",
    ],
}


@dataclass
class Found:
    """What a folder turned out to hold: paths for the config."""

    unlabeled: Path | None = None
    labeled: Path | None = None
    validation: Path | None = None
    test: Path | None = None
    masks: bool = False

    @property
    def task(self) -> str:
        return "segmentation" if self.masks else "classification"

    def parts(self) -> dict[str, Path]:
        """The folders that are there, by their key."""
        named = {name: getattr(self, name) for name in _COMMENTS}
        return {name: path for name, path in named.items() if path is not None}


@dataclass
class _Part:
    """One of these folders: how many files it has, of which classes, and the truth of images with masks."""

    files: int
    classes: Sequence[str] = ()
    masks: Sequence[MaskSource] = ()

    def __str__(self) -> str:
        if self.masks:
            return f"{self.files} files, {len(self.masks)} of them images with masks"
        named = f" in {len(self.classes)} classes ({', '.join(self.classes[:6])}{', …' * (len(self.classes) > 6)})"
        return f"{self.files} files{named if self.classes else ''}"


def write_config(folder: Path, output: Path, *, replace: bool) -> Iterator[str]:
    """Write a config for a folder.

    The folder may hold class sub-folders (labelled), images with masks, sub-folders such as train, val, test and
    unlabeled, or images alone (unlabelled).

    Args:
        folder: of photos.
        output: file to write.
        replace: write over an existing file.

    Yields:
        Lines to show: what was found and what to do next.

    Raises:
        DataError: there is no image, or it is not clear which mask is whose.
        UserError: the file exists.
    """
    if not folder.is_dir():
        raise DataError(f"found no folder {folder.absolute()}")
    if output.exists() and not replace:
        raise UserError(f"{output} exists already; --force replaces it, --out names another file")
    found = look(folder)
    parts = {name: _part(name, path, masks=found.masks) for name, path in found.parts().items()}
    if not any(part.files for part in parts.values()):
        raise DataError(f"found no file in {folder.absolute()}")
    write_text(output, _config(folder, output, found, parts))
    for name, part in parts.items():
        yield f"{name}: {part}"
    yield f"wrote {output}"
    if found.validation is None and found.labeled is None:
        yield f"next: name a folder of labelled images as data.validation ({_FORMS[found.task]}): without one nobody"
        yield "      knows how good the model is"
    if found.masks:
        yield "next: give the classes their names in `data`"
    yield f"next: look through it, then `distill check {output}` and `distill run {output}`"


def look(folder: Path) -> Found:
    """What a folder holds, by the names of its sub-folders and by the files in them.

    Raises:
        DataError: it cannot be listed, or has several COCO files.
    """
    inner = {entry.name: Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."}
    found = Found()
    for name, path in sorted(inner.items()):
        role = next((role for role, names in _NAMES.items() if name.lower() in names), None)
        if role is not None:
            setattr(found, role, path)
    if found != Found():
        found.masks = any(layout_of(path) for role, path in found.parts().items() if role != "unlabeled")
        return found
    if layout_of(folder) is not None:
        return Found(labeled=folder, masks=True)
    return Found(labeled=folder) if inner else Found(unlabeled=folder)


def _part(name: str, folder: Path, *, masks: bool) -> _Part:
    paths = [Path(path).relative_to(folder) for path in walk(folder)]
    if name == "unlabeled":
        return _Part(len(paths))
    if masks:
        found = find_pairs(folder, "labeled")
        return _Part(len(found), masks=[c.mask for c in found if c.mask is not None])
    return _Part(len(paths), sorted({path.parts[0] if len(path.parts) > 1 else "" for path in paths}))


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


def _config(folder: Path, output: Path, found: Found, parts: dict[str, _Part]) -> str:
    def named(path: Path) -> str:
        return _plain(os.path.relpath(path.absolute(), output.absolute().parent))

    sizes, form = _sizes(folder), _FORMS[found.task]
    typical = f"{sizes[len(sizes) // 2][0]}x{sizes[len(sizes) // 2][1]} pixels is typical" if sizes else "sizes unknown"
    lines = [
        f"# Written by `distill init {folder}`: {typical}.",
        "# Check it with `distill check`, then `distill run`. Everything that is not here has a measured default;",
        "# the run folder's config.yaml spells all of them out.",
        f"task: {found.task}",
        "",
        "data:",
    ]
    for name, purpose in _COMMENTS.items():
        path: Path | None = getattr(found, name)
        comment = purpose if name == "unlabeled" else f"{form}: {purpose}"
        if path is not None:
            lines.append(f"  {name}: {named(path)}  # {parts[name].files} files; {comment}")
        elif name in {"validation", "test"} and found.labeled is not None:
            lines.append(f"  {name}: 0.2  # a share of `labeled`, by hash of content: adding images moves none")
        elif name == "validation":
            lines.append(f"  validation: CHANGE-ME  # a folder of labelled images, {form}; 200 help a lot")
        else:
            lines.append(f"  # {name}: …  # {comment}")
    if found.masks:
        lines += _masks([source for part in parts.values() for source in part.masks])
    lines += [
        "  mirror: true  # false for text, digits and signs, where a mirrored image is another class",
        "",
        "teacher:",
        _TEACHERS[found.task],
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
        *_STUDENTS[found.task],
        "",
        "# Promises: where one does not hold, `distill run` ends with exit code 3.",
        f"gates: {{max_size_mb: {8 if found.masks else 4}, max_int8_drop: 0.01, max_partitions: 1}}",
    ]
    return "\n".join(lines) + "\n"


def _masks(sources: Sequence[MaskSource]) -> list[str]:
    """The lines that say what masks stand for, with placeholders where the files do not say it."""
    files = [s.path for s in sources if not s.item and not s.path.lower().endswith(".json") and not s.labelmap]
    if len(files) < len(sources):
        written = [s for s in sources if s.path not in set(files)]
        names = class_names(DataSettings(labeled=Path.cwd(), validation=0.5), written)
        return ["  classes:  # found in the annotations; the order is yours", *(f"    - {_plain(n)}" for n in names)]
    step = max(1, len(files) // _MASKS)
    found = survey(files[::step][:_MASKS])
    if found.colors:
        keys = [f'"{color}"' for color in found.colors[:_MOST_COLORS]]
        rest = f"; {len(found.colors) - _MOST_COLORS} rare ones are left out" * (len(found.colors) > _MOST_COLORS)
        lines = [f"    colors:  # in {found.masks} masks{rest}; several may be one class"]
    else:
        only_two = found.values == [0, IGNORED]  # black and white: here 255 is no class to be ignored
        keys = [str(value) for value in found.values if value != IGNORED or only_two]
        lines = [f"    values:  # in {found.masks} masks; several may be one class, and `1-5: name` names a range"]
    if not keys:
        return []
    black = {"0", '"#000000"'}
    lines += [f"      {key}: {'background' if key in black else f'class_{n}'}" for n, key in enumerate(keys)]
    return ["  masks:", *lines]


def _plain(text: str) -> str:
    return yaml.safe_dump(text, allow_unicode=True, width=10_000).removesuffix("\n").removesuffix("\n...")
