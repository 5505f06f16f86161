"""Configs that are wrong: the whole sentence of each mistake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.core import plugins
from tests.config.conftest import SMALL

Mistakes = Callable[..., list[str]]

TEACHERS, STUDENTS = ", ".join(plugins.names("teachers")), ", ".join(plugins.names("students"))
EXAMPLE = {"teachers": "{timm: NAME}", "students": "{timm: NAME}"}
FILES = "'tflite-float32', 'tflite-float16', 'tflite-int8', 'onnx-float32' or 'onnx-int8'"

VALUES = [
    ("seed: x", "seed: found 'x', expected a whole number"),
    ("seed: -1", "seed: found -1, expected at least 0"),
    ("seed: 1.5", "seed: found 1.5, expected a whole number"),
    ("seed: 0x_", "seed: found '0x_', expected a whole number"),
    ("seed: [1, 2]", "seed: found [1, 2], expected a whole number"),
    ("output: 5", "output: found 5, expected a path"),
    ("train: 5", "train: found 5, expected keys and values"),
    ("train:", "train: found nothing, expected keys and values"),
    ("train: {epochs: 0}", "train.epochs: found 0, expected at least 1"),
    ("train: {epochs: 1.5}", "train.epochs: found 1.5, expected a whole number"),
    ("train: {epochs: many}", "train.epochs: found 'many', expected a whole number"),
    ("train: {epochs:}", "train.epochs: found nothing, expected a whole number"),
    ("train: {lr: fast}", "train.lr: found 'fast', expected a number or 'auto'"),
    ("train: {lr: -1}", "train.lr: found -1, expected a number above 0 or 'auto'"),
    ("train: {lr: aut}", "train.lr: found 'aut', expected a number or 'auto' (did you mean 'auto'?)"),
    ("train: {probe: maybe}", "train.probe: found 'maybe', expected true, false or 'auto'"),
    ("train: {temperature: .inf}", "train.temperature: found inf, expected a finite number"),
    ("train: {ema_decay: 1}", "train.ema_decay: found 1, expected a number below 1"),
    ("train: {warmup_epochs: .nan}", "train.warmup_epochs: found nan, expected a finite number"),
    (
        "train: {batch_norm: freeze}",
        "train.batch_norm: found 'freeze', expected 'auto', 'frozen' or 'train' (did you mean 'frozen'?)",
    ),
    ("labels: {views: 0}", "labels.views: found 0, expected at least 1"),
    ("labels: {top_k: 256}", "labels.top_k: found 256, expected at most 255"),
    ("gates: {min_test_accuracy: 90}", "gates.min_test_accuracy: found 90, expected at most 1"),
    ("gates: {max_size_mb: 0}", "gates.max_size_mb: found 0, expected a number above 0"),
    ("export: {files: []}", "export.files: found [], expected a list of at least 1"),
    ("export: {files: tflite-int8}", "export.files: found 'tflite-int8', expected a list"),
    (
        "export: {files: [tflite-int4]}",
        f"export.files.0: found 'tflite-int4', expected {FILES} (did you mean 'tflite-int8'?)",
    ),
    ("benchmark: {threads: 2}", "benchmark.threads: found 2, expected a list"),
    ("benchmark: {threads: [0]}", "benchmark.threads.0: found 0, expected at least 1"),
    (
        "task: clasification",
        "task: found no task 'clasification' (did you mean 'classification'?);"
        f" known: {', '.join(plugins.names('tasks'))}",
    ),
    (
        "trian: {epochs: 3}",
        "trian: unknown key (did you mean 'train'?); known: task, data, teacher, student, recipe, labels, trust, train,"
        " export, benchmark, gates, sanity, tune, seed, output",
    ),
    (
        "labels: {view: 3}",
        "labels.view: unknown key (did you mean 'views'?); known: views, top_k, grid, engine, workers",
    ),
    (
        "train: {extra: {dise: 1}}",
        "train.extra.dise: found 'dise', expected 'cwd', 'dice' or 'lovasz' (did you mean 'dice'?)",
    ),
    ("train: {extra: {dice: 0}}", "train.extra.dice: found 0, expected a number above 0"),
    ("train: {target_stride: 3}", "train.target_stride: found 3, expected 1, 2, 4 or 8"),
    ("labels: {grid: 2000}", "labels.grid: found 2000, expected at most 1024"),
    ("trust: {min_confidence: 2}", "trust.min_confidence: found 2, expected at most 1"),
    (
        "export: {output: logit}",
        "export.output: found 'logit', expected 'probabilities', 'logits' or 'class_map' (did you mean 'logits'?)",
    ),
    ("labels: {zebra: 3}", "labels.zebra: unknown key; known: views, top_k, grid, engine, workers"),
]


@pytest.mark.parametrize(("line", "sentence"), VALUES, ids=[line for line, _ in VALUES])
def test_a_wrong_value(mistakes: Mistakes, line: str, sentence: str) -> None:
    assert mistakes(f"{SMALL}# a comment\n{line}\n") == [f"teacher.yaml:5: {sentence}"]


SOURCES = [
    ("labeled: golden/trian, validation: 0.2", ".labeled: found no file or folder {here}/golden/trian"),
    ("labeled: '', validation: 0.2", ".labeled: found '', expected a path"),
    ("labeled: 3, validation: 0.2", ".labeled: found 3, expected a path"),
    ("labeled: golden/train, validation: golden/vall", ".validation: found no file or folder {here}/golden/vall"),
    ("labeled: golden/train, validation: 1.5", ".validation: found 1.5, expected a path or a number below 1"),
    ("labeled: golden/train, validation: 0", ".validation: found 0, expected a path or a number above 0"),
    ("labeled: golden/train, validation: yes", ".validation: found true, expected a path or a number below 1"),
    ("labeled: golden/train, validation: [a]", ".validation: found ['a'], expected a path or a number"),
    ("unlabeled: photoz, validation: golden/val", ".unlabeled: found no file or folder {here}/photoz"),
    ("unlabeled: [photos, photoz], validation: golden/val", ".unlabeled.1: found no file or folder {here}/photoz"),
    ("unlabeled: 5, validation: golden/val", ".unlabeled: found 5, expected a path or a list"),
    (
        "unlabeled: photos",
        ": no validation set: give `validation` a folder of labelled images, or a share of `labeled` such as 0.2",
    ),
    (
        "unlabeled: photos, validation: 0.2",
        ": a share as `validation` or `test` is taken from `labeled`, which is missing",
    ),
    ("validation: golden/val", ": nothing to learn from: give `unlabeled`, `labeled` or both"),
    ("unlabeled: [], validation: golden/val", ": nothing to learn from: give `unlabeled`, `labeled` or both"),
    (
        "labeled: golden/train, validation: 0.5, test: 0.5",
        ": `validation` and `test` take 100% of `labeled`: leave some of it to train on",
    ),
    ("manifest: nope.csv", ".manifest: found no file or folder {here}/nope.csv"),
    (
        "manifest: index.csv, test: golden/test",
        ": manifest names every image: leave out unlabeled, labeled, validation and test",
    ),
    (
        "demo: digits, manifest: index.csv",
        ": demo brings its own images: leave out manifest, unlabeled, labeled, validation and test",
    ),
    (
        "labeled: golden/train, validation: 0.2, classes: [cat, dog, cat]",
        ".classes: each class once, but cat is there several times",
    ),
    (
        "labeled: golden/train, validation: 0.2, classes: [cat, no]",
        ".classes.1: found false, expected text; put it in quotes",
    ),
]


MASKS = [
    ("values: {a: road}", ".masks.values: 'a' is no value of a pixel: expected 0 to 65535, or a range such as 1-58"),
    ("values: {-1: road}", ".masks.values: '-1' is no value of a pixel: expected 0 to 65535, or a range such as 1-58"),
    (
        "values: {9-3: road}",
        ".masks.values: '9-3' is no value of a pixel: expected 0 to 65535, or a range such as 1-58",
    ),
    (
        "values: {0-70000: road}",
        ".masks.values: '0-70000' is no value of a pixel: expected 0 to 65535, or a range such as 1-58",
    ),
    ("values: {0: a, 0-5: b}", ".masks.values: 0 is in '0' and in '0-5'"),
    ("values: {0: no}", ".masks.values.0: found false, expected text; put it in quotes"),
    ("values: [a]", ".masks.values: found ['a'], expected keys and values"),
    ("colors: {red: a}", ".masks.colors: 'red' is no colour: expected #rrggbb, in quotes, such as '#ff0000'"),
    ("colors: {'#fff': a}", ".masks.colors: '#fff' is no colour: expected #rrggbb, in quotes, such as '#ff0000'"),
    (
        "colors: {'#ff00aa': a, '#FF00AA': b}",
        ".masks.colors: a colour is there twice, in capital and in small letters",
    ),
    ("ignore: [red]", ".masks.ignore.0: 'red' is no colour: expected #rrggbb, in quotes, such as '#ff0000'"),
    ("ignore: [70000]", ".masks.ignore.0: found 70000, expected at most 65535 or text"),
    ("ignore: 255", ".masks.ignore: found 255, expected a list"),
    (
        "values: {0: a, 7: b}, ignore: [7, 255]",
        ".masks: 7 is a class and in `ignore`: leave it out of one of both",
    ),
    (
        "colors: {'#0000Ff': b}, ignore: ['#0000fF']",
        ".masks: #0000Ff is a class and in `ignore`: leave it out of one of both",
    ),
    ("color: {}", ".masks.color: unknown key (did you mean 'colors'?); known: values, colors, ignore, background"),
]


@pytest.mark.parametrize(("masks", "sentence"), MASKS, ids=[masks for masks, _ in MASKS])
def test_wrong_masks(mistakes: Mistakes, masks: str, sentence: str) -> None:
    told = mistakes(SMALL.replace("validation: 0.2", f"validation: 0.2, masks: {{{masks}}}"))
    assert told == [f"teacher.yaml:1: data{sentence}"]


def test_masks_of_a_class_that_is_none(mistakes: Mistakes) -> None:
    masks = "classes: [a, b], masks: {values: {0: a, 1: c}, colors: {'#000000': d}}"
    told = mistakes(SMALL.replace("validation: 0.2", f"validation: 0.2, {masks}"))
    assert told == ["teacher.yaml:1: data: `classes` lacks c, d, named in `masks`"]


OF_ANOTHER_TASK = [
    ("labels: {grid: 32}", "labels: `grid` is only for `task: segmentation`, but the task is classification"),
    ("trust: {min_confidence: 0.5}", "trust: `min_confidence` is only for `task: segmentation`, but the task is"),
    ("trust: {below: weigh}", "trust: `below` is only for `task: segmentation`, but the task is classification"),
    ("train: {extra: {dice: 1}}", "train: `extra` is only for `task: segmentation`, but the task is classification"),
    ("train: {target_stride: 8}", "train: `target_stride` is only for `task: segmentation`, but the task is"),
    ("export: {upsample: true}", "export: `upsample` is only for `task: segmentation`, but the task is classification"),
    ("gates: {min_test_miou: 0.5}", "gates: `min_test_miou` is only for `task: segmentation`, but the task is"),
    (
        "gates: {min_test_accuracy: 0.5}\ntask: segmentation",
        "gates: `min_test_accuracy` is only for `task: classification`, but the task is segmentation",
    ),
]


@pytest.mark.parametrize(
    ("task", "demo", "other"),
    [("segmentation", "digits", "classification"), ("classification", "scenes", "segmentation")],
)
def test_a_demonstration_of_another_task(mistakes: Mistakes, task: str, demo: str, other: str) -> None:
    text = SMALL.replace("labeled: golden/train, validation: 0.2", f"demo: {demo}") + f"task: {task}\n"
    assert f"teacher.yaml:1: data: `demo: {demo}` is for `task: {other}`, but the task is {task}" in mistakes(text)


@pytest.mark.parametrize(("lines", "sentence"), OF_ANOTHER_TASK, ids=[lines for lines, _ in OF_ANOTHER_TASK])
def test_a_key_that_the_task_never_looks_at(mistakes: Mistakes, lines: str, sentence: str) -> None:
    told = [line for line in mistakes(f"{SMALL}{lines}\n") if "is only for" in line]
    assert len(told) == 1
    assert told[0].startswith(f"teacher.yaml:4: {sentence}")


def test_a_fit_that_the_task_never_looks_at(mistakes: Mistakes) -> None:
    told = mistakes(SMALL.replace("resnet18", "resnet18, fit: {extra: {dice: 1}}"))
    sentence = "`fit.extra` is only for `task: segmentation`, but the task is classification"
    assert told == [f"teacher.yaml:2: teacher: {sentence}"]


@pytest.mark.parametrize(("data", "sentence"), SOURCES, ids=[data for data, _ in SOURCES])
def test_wrong_sources(here: Path, mistakes: Mistakes, data: str, sentence: str) -> None:
    text = SMALL.replace("labeled: golden/train, validation: 0.2", data)
    assert mistakes(text) == [f"teacher.yaml:1: data{sentence.format(here=here)}"]


PLUGINS = [
    ("teacher", "{tim: resnet18}", f".tim: found no teacher 'tim' (did you mean 'timm'?); known: {TEACHERS}"),
    (
        "teacher",
        "{fit: {}, pithon: 'a:b'}",
        f".pithon: found no teacher 'pithon' (did you mean 'python'?); known: {TEACHERS}",
    ),
    ("teacher", "{qqq: x}", f".qqq: found no teacher 'qqq'; known: {TEACHERS}"),
    (
        "teacher",
        "{fit: {}}",
        f": which teacher? Its kind and name are missing, for example {EXAMPLE['teachers']}",
    ),
    ("teacher", "{}", f": expected one kind of teacher and its name, for example {EXAMPLE['teachers']}"),
    ("teacher", "resnet18", f": expected one kind of teacher and its name, for example {EXAMPLE['teachers']}"),
    (
        "teacher",
        "{timm: a, python: 'a:b'}",
        ": found several kinds of teacher (timm, python), expected one",
    ),
    ("teacher", "{timm: [a]}", ".timm: found ['a'], expected text"),
    ("teacher", "{timm: 18}", ".timm: found 18, expected text; put it in quotes"),
    ("teacher", "{timm: resnet18, class_map: [a]}", ".class_map: found ['a'], expected keys and values"),
    ("teacher", "{timm: resnet18, mean: [0.5]}", ".mean: found [0.5], expected a list of at least 3"),
    (
        "teacher",
        "{timm: resnet18, model_args: {num_classes: 3}}",
        ".model_args: num_classes cannot be set here: `pretrained`, `checkpoint` and the classes decide",
    ),
    (
        "teacher",
        "{python: my_model, image_size: 32}",
        ".python: found 'my_model', expected `module:name` of a callable, for example my_model:predict",
    ),
    ("teacher", "{python: 'a:b'}", ".image_size: this key is needed"),
    ("student", "{timmm: a}", f".timmm: found no student 'timmm' (did you mean 'timm'?); known: {STUDENTS}"),
    ("student", "{timm: mobilenetv2_035, image_size: 8}", ".image_size: found 8, expected at least 16"),
    ("student", "{timm: mobilenetv2_035, checkpoint: no.pth}", ".checkpoint: found no file or folder {here}/no.pth"),
]


@pytest.mark.parametrize(("section", "value", "sentence"), PLUGINS, ids=[f"{s}: {v}" for s, v, _ in PLUGINS])
def test_a_wrong_teacher_or_student(here: Path, mistakes: Mistakes, section: str, value: str, sentence: str) -> None:
    right = {"teacher": "{timm: resnet18}", "student": "{timm: mobilenetv2_035}"} | {section: value}
    text = "data: {labeled: golden/train, validation: 0.2}\n"
    told = mistakes(text + "".join(f"{key}: {value}\n" for key, value in right.items()))
    line = 2 if section == "teacher" else 3
    assert told == [f"teacher.yaml:{line}: {section}{sentence.replace('{here}', str(here))}"]


def test_an_unknown_student_gets_a_phone_friendly_suggestion(mistakes: Mistakes) -> None:
    (told,) = mistakes(SMALL.replace("mobilenetv2_035", "mobilenetv4_conv_smal"))
    assert told.startswith(
        "teacher.yaml:3: student.timm: timm has no model 'mobilenetv4_conv_smal' (did you mean"
        " 'mobilenetv4_conv_small'?); known to be fast in int8: mobilenetv4_conv_small, mobilenetv2_100,"
    )


SYNTAX = [
    ("seed: [1", 5, "while parsing a flow sequence in line 4, expected ',' or ']', but got '<stream end>'"),
    ("seed: 'a", 5, "while scanning a quoted scalar in line 4, found unexpected end of stream"),
    ("\tseed: 1", 4, "found character '\\t' that cannot start any token (indent with spaces)"),
    ("seed: a: b", 4, "mapping values are not allowed here"),
    ("seed: *other", 4, "found undefined alias 'other'"),
    ("seed: 1\n---\nseed: 2", 5, "expected a single document in the stream in line 1, but found another document"),
    ("seed: &seed [*seed]", 4, "an anchor that holds itself"),
    ("<<: {seed: 3}", 4, "expected a plain word as key"),
    ("? [a, b]\n: 2", 4, "expected a plain word as key"),
    (
        "seed: !!python/object/apply:os.system ['touch pwned']",
        4,
        "the tag !!python/object/apply:os.system is refused, expected plain values",
    ),
    ("seed: !!python/name:os.system", 4, "the tag !!python/name:os.system is refused, expected plain values"),
    (
        "train: !!python/object:os.stat {epochs: 3}",
        4,
        "the tag !!python/object:os.stat is refused, expected plain values",
    ),
    ("seed: !!binary aGVsbG8=", 4, "the tag !!binary is refused, expected plain values"),
    ("train: !mine {epochs: 3}", 4, "the tag !mine is refused, expected plain values"),
]


@pytest.mark.parametrize(("lines", "number", "reason"), SYNTAX, ids=[lines for lines, _, _ in SYNTAX])
def test_what_is_no_plain_yaml(here: Path, mistakes: Mistakes, lines: str, number: int, reason: str) -> None:
    assert mistakes(f"{SMALL}{lines}\n") == [f"teacher.yaml:{number}: not YAML: {reason}"]
    assert not (here / "pwned").exists()


def test_a_few_lines_cannot_become_billions_of_values(mistakes: Mistakes) -> None:
    aliases = ["a: &a0 [x]", *(f"b{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
    (problem,) = mistakes("\n".join(aliases))
    assert problem.endswith("not YAML: more than 100000 values")
    assert mistakes("a: " + "[" * 3000 + "]" * 3000) == ["teacher.yaml: not YAML: nested too deeply"]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n"])
def test_a_document_without_keys(mistakes: Mistakes, text: str) -> None:
    assert mistakes(text) == ["teacher.yaml:1: expected keys and values, `task: …`"]


def test_an_empty_document_lacks_everything(mistakes: Mistakes) -> None:
    assert mistakes("# nothing\n") == [
        f"teacher.yaml:1: teacher: expected one kind of teacher and its name, for example {EXAMPLE['teachers']}",
        f"teacher.yaml:1: student: expected one kind of student and its name, for example {EXAMPLE['students']}",
        "teacher.yaml:1: data: this key is needed",
    ]


def test_a_key_that_is_there_twice(mistakes: Mistakes) -> None:
    text = SMALL + "train:\n  epochs: 3\n  lr: 1e-3\n  epochs: 4\nseed: 1\nseed: 2\n"
    assert mistakes(text) == [
        "teacher.yaml:7: train.epochs: the key is there twice, first in line 5",
        "teacher.yaml:9: seed: the key is there twice, first in line 8",
    ]


def test_all_mistakes_at_once_each_with_its_line_none_twice(here: Path, mistakes: Mistakes) -> None:
    text = """\
task: clasification
data:
  unlabeled: photoz
  resize: crop
  max_megapixels: -1
teacher:
  timm: resnet18
  chekpoint: weights.pth
  fit: {epoch: 3}
student:
  tim: mobilenetv2_035
train:
  epochs: 0
  lr: quick
export:
  files:
    - tflite-int8
    - tflite-int4
gatez: {}
"""
    fit = "epochs, batch_size, lr, weight_decay"
    told = mistakes(text)
    assert [line.split(": ", 2)[:2] for line in told] == [
        ["teacher.yaml:1", "task"],
        ["teacher.yaml:2", "data"],
        ["teacher.yaml:3", "data.unlabeled"],
        ["teacher.yaml:4", "data.resize"],
        ["teacher.yaml:5", "data.max_megapixels"],
        ["teacher.yaml:8", "teacher.chekpoint"],
        ["teacher.yaml:9", "teacher.fit.epoch"],
        ["teacher.yaml:11", "student.tim"],
        ["teacher.yaml:13", "train.epochs"],
        ["teacher.yaml:14", "train.lr"],
        ["teacher.yaml:18", "export.files.1"],
        ["teacher.yaml:19", "gatez"],
    ]
    assert told[1].endswith(
        "no validation set: give `validation` a folder of labelled images, or a share of `labeled` such as 0.2"
    )
    assert told[2].endswith(f"found no file or folder {here}/photoz")
    assert "unknown key (did you mean 'checkpoint'?)" in told[5]
    assert f"unknown key (did you mean 'epochs'?); known: {fit}" in told[6]
    assert "unknown key (did you mean 'gates'?)" in told[11]


def test_a_misspelt_source_is_one_mistake_not_also_a_missing_one(mistakes: Mistakes) -> None:
    text = SMALL.replace("validation: 0.2", "vallidation: 0.2")
    (told,) = mistakes(text)
    assert told.startswith(
        "teacher.yaml:1: data.vallidation: unknown key (did you mean 'validation'?); known: unlabeled,"
    )


def test_a_long_value_is_cut(mistakes: Mistakes) -> None:
    (told,) = mistakes(f"{SMALL}seed: {'x' * 500}\n")
    assert len(told) < 150
    assert told.endswith("..., expected a whole number")
