"""The sample's screens on Android 14's own classes (Robolectric), with real models behind them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
from PIL import Image

from distill.core.overlay import class_colors
from tests.workplace import Workplace

from .conftest import SAMPLE, litert, missing, module_of

_Pixels = npt.NDArray[np.uint8]
_SHOWN = ("start", "picture", "night", "about", "benchmark")


def test_people_see_labels(finished: Workplace, toolchain: ModuleType, tmp_path: Path) -> None:
    _check("classification", finished, finished.root / "photos", toolchain, tmp_path)


def test_people_see_masks(segmented: Workplace, toolchain: ModuleType, tmp_path: Path) -> None:
    seen = _check("segmentation", segmented, segmented.root / "shapes", toolchain, tmp_path)
    # Bars have the colours of their classes.
    wanted = {tuple(color) for color in class_colors(3)[1:].tolist()}
    assert wanted & {tuple(pixel) for pixel in np.unique(seen["picture"].reshape(-1, 3), axis=0).tolist()}


def _check(task: str, place: Workplace, photos: Path, toolchain: ModuleType, tmp_path: Path) -> dict[str, _Pixels]:
    """Run the tests of the screens on an exported model; what they kept, by name."""
    missing("java", "javac", "mvn", "aapt2")
    module = module_of(place, "screens")
    place.run("export", "android", "--into", str(module))
    photo = min(photos.glob("test/**/*.png"))
    _run(toolchain, module / "src/main/assets", photo, tmp_path)
    seen = {name: np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in _SHOWN}
    for name, pixels in seen.items():
        assert pixels.shape == ((720, 1280, 3) if name == "night" else (1280, 720, 3)), name
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, f"{name} shows next to nothing"
    assert seen["about"][-1, 0].min() > 200 and seen["night"][-1, -1].max() < 60
    kept = os.environ.get("DISTILL_SCREENS")
    if kept:
        for name in _SHOWN:
            shutil.copy(tmp_path / f"{name}.png", Path(kept) / f"{task}-{name}.png")
    return seen


def _run(toolchain: ModuleType, assets: Path, photo: Path, pictures: Path) -> None:
    import build_apk  # type: ignore[import-not-found]

    cache = toolchain.cache_folder()
    tools, screens = toolchain.Toolchain(cache), toolchain.Artifacts(cache, "screens")
    folder = pictures / "build"
    folder.mkdir()
    packed, java = build_apk.resources(tools, assets, folder)
    stubs, classes = folder / "stubs", folder / "classes"
    android = tools.jar("android-all")
    sources = [str(file) for file in (SAMPLE / "screens/stubs").rglob("*.java")]
    subprocess.run(["javac", "-nowarn", "-d", stubs, "-cp", android, java, *sources], check=True)
    # Robolectric's own copy of Android is not for the class path: it loads that by itself.
    libraries = [jar for jar in screens.jars() if not jar.name.startswith("android-all-instrumented")]
    libraries += [tools.jar("junit"), tools.jar("hamcrest-core"), tools.jar("jna"), stubs]
    engine = SAMPLE / "core-tests/src/test/kotlin/org/mobiledistill/inference/core/LiteRtEngine.kt"
    tools.kotlinc(
        [SAMPLE / "inference/src/main/kotlin", SAMPLE / "app/src/main/kotlin", SAMPLE / "screens/kotlin", engine],
        classes,
        [android, *libraries],
    )
    config = classes / "com/android/tools/test_config.properties"
    config.parent.mkdir(parents=True)
    config.write_text(
        f"android_merged_assets={assets}\nandroid_merged_manifest={folder / 'AndroidManifest.xml'}\n"
        f"android_resource_apk={packed}\nandroid_custom_package=org.mobiledistill.sample\n"
    )
    opens = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("io", "lang", "nio", "util")]
    done = subprocess.run(
        [
            *("java", "-Xmx1500m", "-XX:+UseSerialGC", *opens),
            *("-Drobolectric.offline=true", f"-Drobolectric.dependency.dir={screens.folder}"),
            *(f"-Ddistill.exports={assets / 'distill'}", f"-Ddistill.litert={litert()}", f"-Ddistill.photo={photo}"),
            f"-Ddistill.pictures={pictures}",
            *("-cp", os.pathsep.join(map(str, [classes, tools.jar("kotlin-stdlib"), *libraries, android]))),
            *("org.junit.runner.JUnitCore", "org.mobiledistill.sample.ScreensTest"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if "\tat " not in line)[-4000:]
