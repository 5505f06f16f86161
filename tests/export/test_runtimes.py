"""The int8 file answers alike in LiteRT, in TensorFlow's own interpreter and, less exactly, in tflite-runtime 2.14."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.core.files import read_json
from tests.workplace import Workplace

# Each runtime in a process of its own: they do not share one well.
PROGRAM = """
import sys, numpy as np
{imports}
interpreter = Interpreter(sys.argv[1], num_threads=1)
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
    "litert": "from ai_edge_litert.interpreter import Interpreter",
    "tensorflow": "import tensorflow as tf; Interpreter = tf.lite.Interpreter",
    "tflite-runtime": "from tflite_runtime.interpreter import Interpreter",
}


def ask(python: str, runtime: str, model: Path, images: np.ndarray, folder: Path) -> np.ndarray:
    np.save(folder / "images.npy", images)
    answers = folder / f"{runtime}.npy"
    program = PROGRAM.format(imports=IMPORTS[runtime])
    done = subprocess.run(
        [python, "-c", program, str(model), str(folder / "images.npy"), str(answers)],
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


STEP = """
import sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType
plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
interpreter = Interpreter(sys.argv[1], experimental_op_resolver_type=plain)
interpreter.allocate_tensors()
last = [op for op in interpreter._get_ops_details() if op["op_name"] == "DEQUANTIZE"][-1]
print(interpreter._get_tensor_details(int(last["inputs"][0]), 0)["quantization"][0])
"""


def logit_step(model: Path) -> float:
    """Size of one step of the quantized tensor in front of the float softmax."""
    done = subprocess.run([sys.executable, "-c", STEP, str(model)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


@pytest.mark.parametrize("runtime", ["tensorflow", "tflite-runtime"])
def test_int8_answers_alike(finished: Workplace, runtime: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if runtime == "tensorflow" and importlib.util.find_spec("tensorflow") is None:
        pytest.skip("needs the extra `tensorflow`")
    python = request.getfixturevalue("old_runtime") if runtime == "tflite-runtime" else sys.executable
    model = finished.root / "runs/teacher/export/student.int8.tflite"
    photos = sorted((finished.root / "photos/test").glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(p).convert("RGB").resize((32, 32))) for p in photos])
    ours = ask(sys.executable, "litert", model, images, tmp_path)
    theirs = ask(python, runtime, model, images, tmp_path)
    if runtime == "tensorflow":
        # Differences of logits are differences of log-probabilities, taken against one class so that the normaliser of
        # the softmax cancels: two logits of one step each may differ by two.
        first, second = (np.log(p[:, 1:]) - np.log(p[:, :1]) for p in (ours, theirs))
        assert np.abs(first - second).max() <= 2 * logit_step(model) * 1.01
    # The wheel of tflite-runtime 2.14 runs TensorFlow's built-in kernels, not XNNPACK's. They round differently in each
    # layer, which adds up to several steps; LiteRT with its delegate off differs from LiteRT with it by as much.
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
