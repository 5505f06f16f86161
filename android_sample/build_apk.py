"""Build the sample app without Gradle and without Google's servers: a signed debug APK in under a minute.

    distill export android && python android_sample/build_apk.py --output sample.apk

It takes the sources that the Gradle project takes. It is how CI proves that they compile and pack; the Gradle way is
the one for your own app. Needs a JDK (17 or newer), Maven, and Debian's aapt, zipalign and apksigner.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from toolchain import Toolchain, ToolError, cache_folder, run

__all__ = ["build", "describe", "main", "resources"]

_HERE = Path(__file__).resolve().parent
_APP, _LIBRARY = _HERE / "app" / "src" / "main", _HERE / "inference" / "src" / "main"
_PACKAGE, _MIN_SDK, _TARGET_SDK = "org.mobiledistill.sample", 21, 35
_VERSION = (1, "0.1.0")
_ABIS = ("armeabi-v7a", "arm64-v8a")
_PAGE = 16384  # of new phones; 4096 divides it
_SHRINK = """\
-injars {classes}
-injars {runtime}(!META-INF/**)
-injars {runtime_api}(!META-INF/**)
-injars {stdlib}(!META-INF/**)
-libraryjars {android}
-libraryjars {annotations}
-libraryjars <java.home>/jmods/java.base.jmod(!**.jar;!module-info.class)
-outjars {out}
# Lambdas and joined strings become what Android 5 knows.
-target 1.7
-dontobfuscate
-dontoptimize
-keep class org.mobiledistill.** {{ *; }}
# Its native half calls back by name.
-keep class org.tensorflow.** {{ *; }}
# The standard library asks at run time for Java versions that Android does not have.
-dontwarn kotlin.**
-dontwarn org.tensorflow.**
-dontnote **
"""


def build(assets: Path, output: Path, cache: Path) -> None:
    """Write a signed debug APK for 32-bit and 64-bit ARM.

    Args:
        assets: folder with `distill/`, as `distill export android` writes it.
        output: the APK.
        cache: folder for fetched tools and the debug key, kept between runs.

    Raises:
        ToolError: something is missing, or does not compile.
    """
    exported = assets / "distill" / "model.json"
    if not exported.is_file():
        raise ToolError(f"{exported} is not there: run `distill export android` first")
    tools = Toolchain(cache)
    with tempfile.TemporaryDirectory(prefix="apk-") as place:
        folder = Path(place)
        packed, java = resources(tools, assets, folder)
        classes = folder / "classes"
        classes.mkdir()
        run(["javac", "--release", "8", "-Xlint:-options", "-d", str(classes), str(java)])
        android, runtime, runtime_api = (
            tools.jar(n) for n in ("android-all", "tensorflow-lite", "tensorflow-lite-api")
        )
        sources = [_LIBRARY / "kotlin", _APP / "kotlin"]
        tools.kotlinc(sources, classes, [android, runtime, runtime_api, classes])
        shrunk, rules, dex = folder / "shrunk.jar", folder / "shrink.pro", folder / "classes.dex"
        rules.write_text(
            _SHRINK.format(classes=classes, runtime=runtime, runtime_api=runtime_api, stdlib=tools.jar("kotlin-stdlib"),
                           android=android, annotations=tools.jar("annotations"), out=shrunk)
        )  # fmt: skip
        tools.proguard(rules)
        tools.java(
            ["dalvik-dx"], "com.android.dx.command.Main",
            *("--dex", f"--min-sdk-version={_MIN_SDK}", f"--output={dex}", str(shrunk)),
        )  # fmt: skip
        aligned = folder / "aligned.apk"
        _pack(packed, dex, tools.aar("tensorflow-lite"), folder / "packed.apk")
        run(["zipalign", "-f", "4", str(folder / "packed.apk"), str(aligned)])
        _add_libraries(aligned, tools.aar("tensorflow-lite"))
        run(["zipalign", "-c", "-p", "4", str(aligned)])
        _sign(aligned, output, cache)


def resources(tools: Toolchain, assets: Path, folder: Path) -> tuple[Path, Path]:
    """Write an APK of manifest, resources and assets alone, and R.java, into a folder; beside them AndroidManifest.xml.

    Raises:
        ToolError: something in them is wrong.
    """
    compiled, packed, java = folder / "resources.zip", folder / "resources.apk", folder / "java"
    manifest = folder / "AndroidManifest.xml"
    # Gradle takes the package and how libraries lie from its build file; here they stand in the manifest.
    text = (_APP / "AndroidManifest.xml").read_text(encoding="utf-8")
    text = text.replace("<manifest ", f'<manifest package="{_PACKAGE}" ', 1)
    text = text.replace("<application", '<application android:extractNativeLibs="false"', 1)
    manifest.write_text(text, encoding="utf-8")
    run(["aapt2", "compile", "--dir", str(_APP / "res"), "-o", str(compiled)])
    run(
        [
            *("aapt2", "link", "-o", str(packed), "--manifest", str(manifest), "-I", str(tools.jar("android-all"))),
            *("--java", str(java), "-A", str(assets), "--no-compress-regex", r"\.tflite$", "--debug-mode"),
            *("--min-sdk-version", str(_MIN_SDK), "--target-sdk-version", str(_TARGET_SDK)),
            *("--version-code", str(_VERSION[0]), "--version-name", _VERSION[1], str(compiled)),
        ]
    )
    return packed, java / _PACKAGE.replace(".", "/") / "R.java"


def _pack(resources: Path, dex: Path, runtime: Path, into: Path) -> None:
    into.write_bytes(resources.read_bytes())
    with zipfile.ZipFile(into, "a", zipfile.ZIP_DEFLATED) as apk:
        apk.writestr(_entry("classes.dex", zipfile.ZIP_DEFLATED), dex.read_bytes())
        with zipfile.ZipFile(runtime) as aar:
            apk.writestr(_entry("assets/licenses/tensorflow-lite.txt", zipfile.ZIP_DEFLATED), aar.read("LICENSE"))


def _add_libraries(apk: Path, runtime: Path) -> None:
    """Uncompressed and beginning at whole pages, so that the system maps them out of the APK."""
    with zipfile.ZipFile(runtime) as aar, zipfile.ZipFile(apk, "a") as into:
        for abi in _ABIS:
            for name in sorted(n for n in aar.namelist() if n.startswith(f"jni/{abi}/")):
                entry = _entry(f"lib/{abi}/{Path(name).name}", zipfile.ZIP_STORED)
                begins = into.start_dir + 30 + len(entry.filename)  # a local header has 30 bytes and the name
                entry.extra = _padding(-begins % _PAGE)
                into.writestr(entry, aar.read(name))


def _padding(size: int) -> bytes:
    """An extra field of a ZIP entry; one has at least 4 bytes. 0xD935 is the one Android's tools align by."""
    if size == 0:
        return b""
    size += _PAGE if size < 6 else 0
    return struct.pack("<HHH", 0xD935, size - 4, _PAGE) + bytes(size - 6)


def _entry(name: str, method: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1981, 1, 1, 1, 1, 2))  # as Android's tools date all: the same input, the same bytes
    entry.compress_type, entry.external_attr = method, 0o644 << 16
    return entry


def _sign(aligned: Path, output: Path, cache: Path) -> None:
    """With a debug key that is made once, so that a newer APK can be installed over an older one."""
    key = cache / "debug.keystore"
    if not key.is_file():
        with tempfile.TemporaryDirectory(dir=cache) as place:
            made = Path(place) / "debug.keystore"
            run(
                [
                    *("keytool", "-genkeypair", "-keystore", str(made), "-alias", "androiddebugkey", "-keyalg", "RSA"),
                    *("-keysize", "2048", "-validity", "10000", "-storetype", "PKCS12"),
                    *("-storepass", "android", "-keypass", "android", "-dname", "CN=Android Debug,O=Android,C=US"),
                ]
            )
            made.rename(key)
    output.parent.mkdir(parents=True, exist_ok=True)
    run(
        [
            *("apksigner", "sign", "--ks", str(key), "--ks-pass", "pass:android", "--min-sdk-version", str(_MIN_SDK)),
            *("--v4-signing-enabled", "false", "--out", str(output), str(aligned)),
        ]
    )
    run(["apksigner", "verify", "--min-sdk-version", str(_MIN_SDK), str(output)])


def describe(apk: Path) -> list[str]:
    """What is in an APK that matters here, one line each: sizes, ABIs, how the model lies, alignment of libraries.

    Raises:
        ToolError: the model is not the one that was proven, or cannot be mapped.
    """
    lines = [f"{apk}: {apk.stat().st_size / 1e6:.2f} MB, signed (debug key), verified by apksigner"]
    with zipfile.ZipFile(apk) as opened, apk.open("rb") as raw:
        manifest = json.loads(opened.read("assets/distill/model.json"))
        names = opened.namelist()
        model = opened.getinfo(f"assets/distill/{manifest['file']}")
        if hashlib.sha256(opened.read(model)).hexdigest() != manifest["sha256"]:
            raise ToolError(f"{apk}: {model.filename} is not the file that was proven; export it again")
        if model.compress_type != zipfile.ZIP_STORED:
            raise ToolError(f"{apk}: {model.filename} is compressed and cannot be mapped")
        lines.append(f"{model.filename}: {model.file_size / 1e6:.2f} MB, uncompressed, as proven")
        golden = [name for name in names if name.startswith("assets/distill/golden/")]
        lines.append(
            f"golden files: {len(golden)}, {sum(opened.getinfo(n).compress_size for n in golden) / 1e6:.2f} MB"
        )
        lines.append(f"classes.dex: {opened.getinfo('classes.dex').file_size / 1e6:.2f} MB")
        for name in sorted(n for n in names if n.startswith("lib/")):
            info = opened.getinfo(name)
            raw.seek(info.header_offset + 26)
            name_length, extra_length = struct.unpack("<HH", raw.read(4))
            begins = info.header_offset + 30 + name_length + extra_length
            segments = _segment_alignment(opened.read(name))
            kept = "uncompressed" if info.compress_type == zipfile.ZIP_STORED else "compressed"
            verdict = (
                "maps on pages of 4 and 16 KB"
                if segments % _PAGE == 0 and begins % _PAGE == 0
                else "pages of 4 KB only"
            )
            lines.append(
                f"{name}: {info.file_size / 1e6:.2f} MB, {kept}, at a multiple of {_largest_power(begins)},"
                f" segments aligned to {segments}: {verdict}"
            )
    return lines


def _segment_alignment(elf: bytes) -> int:
    """Smallest alignment of the segments that are loaded, of a little-endian ELF file of 32 or 64 bits."""
    wide = elf[4] == 2
    at, size, count = (
        (struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54))
        if wide
        else (struct.unpack_from("<I", elf, 28)[0], *struct.unpack_from("<HH", elf, 42))
    )
    headers = range(at, at + size * count, size)
    loaded = [header for header in headers if struct.unpack_from("<I", elf, header)[0] == 1]
    return min(
        struct.unpack_from("<Q", elf, h + 48)[0] if wide else struct.unpack_from("<I", elf, h + 28)[0] for h in loaded
    )


def _largest_power(number: int) -> int:
    return number & -number


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the APK to write")
    parser.add_argument(
        "--assets", type=Path, default=_APP / "assets", metavar="FOLDER",
        help="assets with distill/ in it; left out: those that `distill export android` wrote into the sample",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, default=cache_folder(), metavar="FOLDER", help="for fetched tools")
    given = parser.parse_args()
    started = time.monotonic()
    try:
        build(given.assets, given.output, given.cache)
        lines = describe(given.output)
    except ToolError as error:
        print(f"build_apk.py: {error}", file=sys.stderr)
        return 2
    print(*lines, sep="\n")
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
