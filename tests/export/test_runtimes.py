"""The int8 file answers alike in LiteRT, TensorFlow and tflite-runtime 2.14 where these run the same kernels."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from distill.core.files import read_json
from tests.workplace import Workplace

# Each runtime in a process of its own: they do not share one well.
PROGRAM = """
import sys, numpy as np
{imports}
kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if sys.argv[4] == "built-in" else OpResolverType.AUTO
interpreter = Interpreter(sys.argv[1], num_threads=1, experimental_op_resolver_type=kernels)
interpreter.allocate_tensors()
given, taken = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
answers = []
for image in np.load(sys.argv[2]):
    interpreter.set_tensor(given["index"], image[None])
    interpreter.invoke()
    answers.append(interpreter.get_tensor(taken["index"])[0])
np.save(sys.argv[3], np.stack(answers))
"""
IMPORTS = {
    "litert": "from ai_edge_litert.interpreter import Interpreter, OpResolverType",
    "tensorflow": """
import tensorflow as tf
Interpreter, OpResolverType = tf.lite.Interpreter, tf.lite.experimental.OpResolverType
""",
    "tflite-runtime": "from tflite_runtime.interpreter import Interpreter, OpResolverType",
}
Kernels = Literal["XNNPACK", "built-in"]


def ask(python: str, runtime: str, kernels: Kernels, model: Path, images: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "images.npy", images)
    answers = folder / f"{runtime}.{kernels}.npy"
    program = PROGRAM.format(imports=IMPORTS[runtime])
    done = subprocess.run(
        [python, "-c", program, str(model), str(folder / "images.npy"), str(answers), kernels],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return np.load(answers)


@pytest.fixture(scope="session")
def old_runtime() -> str:
    """A Python with tflite-runtime 2.14, which needs an older NumPy than the rest; made once, kept in the cache."""
    if sys.version_info[:2] not in {(3, 10), (3, 11)}:
        pytest.skip("tflite-runtime 2.14 has wheels for Python 3.9 to 3.11 only")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mobile-distill"
    venv = cache / f"tflite-runtime-2.14-py3{sys.version_info[1]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "tflite-runtime.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (venv / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True)
            install = [str(venv / "bin/pip"), "install", "--quiet", "tflite-runtime==2.14.0", "numpy<2"]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                message = f"tflite-runtime 2.14 cannot be installed: {done.stderr.strip().splitlines()[-1:]}"
                pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
            (venv / "complete").touch()
    return str(venv / "bin/python")


@pytest.fixture(scope="session")
def asked(finished: Workplace) -> tuple[Path, np.ndarray]:
    """An int8 file and its test images."""
    photos = sorted((finished.root / "photos/test").glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(p).convert("RGB").resize((32, 32))) for p in photos])
    return finished.root / "runs/teacher/export/student.int8.tflite", images


def logits(probabilities: np.ndarray) -> np.ndarray:
    """Against the first class, so that the normaliser of the softmax cancels."""
    return np.log(probabilities[:, 1:]) - np.log(probabilities[:, :1])


@pytest.mark.parametrize(
    ("runtime", "kernels"),
    [("tensorflow", "XNNPACK"), ("tensorflow", "built-in"), ("tflite-runtime", "built-in")],
)
def test_the_same_kernels_answer_alike_in_every_runtime(
    asked: tuple[Path, np.ndarray], runtime: str, kernels: Kernels, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if runtime == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra `tensorflow`")
    python = request.getfixturevalue("old_runtime") if runtime == "tflite-runtime" else sys.executable
    ours = ask(sys.executable, "litert", kernels, *asked, tmp_path)
    theirs = ask(python, runtime, kernels, *asked, tmp_path)
    step = np.ptp(logits(ours)) / 255  # of a tensor of 8 bits that held these logits
    assert np.abs(logits(ours) - logits(theirs)).max() <= step
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()


def test_the_other_kernels_answer_nearly_alike(asked: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    """Built-in kernels round differently from XNNPACK's in each layer, which adds up to several steps.

    tflite-runtime 2.14 runs them even with its delegate on: the wheel's XNNPACK takes float operators only.
    """
    ours = ask(sys.executable, "litert", "XNNPACK", *asked, tmp_path)
    theirs = ask(sys.executable, "litert", "built-in", *asked, tmp_path)
    assert np.abs(ours - theirs).max() > 0, "the delegate was never off"
    assert np.abs(ours - theirs).max() <= 0.1
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean() >= 0.9


def test_camera_bytes_go_in_as_they_are(finished: Workplace) -> None:
    made = read_json(finished.root / "runs/teacher/export/student.int8.tflite.json")
    (given,) = made["inputs"]
    assert given["dtype"] == "uint8"
    assert given["scale"] == pytest.approx(2 / 255, rel=1e-6)
    assert given["zero_point"] in {127, 128}


def test_a_changed_file_is_made_anew_and_a_bad_one_is_rejected(finished: Workplace, tmp_path: Path) -> None:
    """A copy of the finished run: its int8 file is damaged, then its student's answers are made to disagree."""
    import pyarrow.parquet

    from distill.core.errors import ArtifactError
    from distill.core.progress import Progress
    from distill.core.run import Run
    from export.files import Exporter, open_artifact

    subprocess.run(["cp", "-r", str(finished.root / "runs/teacher"), str(tmp_path / "run")], check=True)
    run = Run(tmp_path / "run")
    path = run.root / "export/student.int8.onnx"
    good = path.read_bytes()
    manifest = read_json(path.with_name(path.name + ".json"))
    path.write_bytes(good[:-100])
    with pytest.raises(ArtifactError, match="is not the file that was proven"):
        open_artifact(run, manifest, 1)

    from rich.console import Console

    Exporter(run, Progress(Console(quiet=True))).make("onnx-int8")
    assert path.read_bytes() == good

    answers = run.root / "student/predictions/validation.parquet"
    table = pyarrow.parquet.read_table(answers)
    flipped = [[-v for v in row] for row in table["logits"].to_pylist()]
    pyarrow.parquet.write_table(table.set_column(2, "logits", [flipped]), answers)
    path.unlink()
    with pytest.raises(ArtifactError, match="answers as the student does on 0"):
        Exporter(run, Progress(Console(quiet=True))).make("onnx-int8")
    assert path.with_name("student.int8.onnx.rejected").exists()
    reason = read_json(path.with_name("student.int8.onnx.rejected.json"))["reason"]
    assert "at least 0.5 are needed" in reason
    assert not path.exists()
