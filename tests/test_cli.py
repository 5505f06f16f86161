"""Help appears at once, without torch; lists read files."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "timm", "tensorflow", "onnxruntime", "litert_torch", "sklearn", "matplotlib", "pyarrow", "numpy"}


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("distill", ["--help"]),
        ("distill", ["run", "--help"]),
        ("distill", ["audit", "--help"]),
        ("distill", ["doctor", "--help"]),
        ("distill", ["sanity", "--help"]),
        ("distill", ["labels", "--help"]),
        ("distill", ["labels", "stat", "--help"]),
        ("export", ["--help"]),
        ("export", ["tflite", "--help"]),
    ],
)
def test_help_imports_nothing_heavy(module: str, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert f"{module}.cli" in imported
    assert not HEAVY & imported
    assert "--help" in done.stdout


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("teachers", ["timm", "python"]),
        ("students", ["mobilenetv4_conv_small", "186 M"]),
        ("tasks", ["classification"]),
        ("formats", ["tflite", "onnx"]),
        ("devices", ["adb", "arm_emulated", "cpu"]),
        ("recipes", ["quickstart", "trashnet"]),
    ],
)
def test_ls(what: str, expected: list[str]) -> None:
    program = (
        f"import sys; sys.argv = ['distill', 'ls', '{what}']; from distill.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in expected), done.stdout


def test_every_recipe_of_the_package_is_valid(tmp_path) -> None:
    from distill.config_file import load_config, recipes

    manifest = tmp_path / "index.csv"
    manifest.write_text("path,label,split\n")
    changes = {name: [f"data.manifest={manifest}"] for name in ("trashnet", "trashnet-ensemble")}
    for name, path in recipes().items():
        assert load_config(path, changes.get(name, [])).output.name == name
        assert path.read_text().startswith(f"# {name}: ")
