"""The two builds of the sample take the same versions."""

from __future__ import annotations

import re

from .conftest import SAMPLE


def test_gradle_and_the_plain_build_name_the_same_versions() -> None:
    pom = (SAMPLE / "tools/build.xml").read_text()
    catalogue = (SAMPLE / "gradle/libs.versions.toml").read_text()
    library = (SAMPLE / "inference/build.gradle.kts").read_text()
    for artifact, key in {
        "kotlin-stdlib": "kotlin",
        "kotlin-compiler-embeddable": "kotlin",
        "tensorflow-lite": "tensorflow-lite",
        "tensorflow-lite-api": "tensorflow-lite",
        "junit": "junit",
        "jna": "jna",
    }.items():
        (packed,) = re.findall(rf"<artifactId>{artifact}</artifactId><version>([^<]+)<", pom)
        (named,) = re.findall(rf'^{key} = "([^"]+)"', catalogue, re.M)
        assert packed == named, artifact
        if key == "tensorflow-lite":
            assert f'"org.tensorflow:tensorflow-lite:{packed}"' in library


def test_both_builds_make_the_same_app() -> None:
    gradle = (SAMPLE / "app/build.gradle.kts").read_text()
    plain = (SAMPLE / "build_apk.py").read_text()
    (package,) = re.findall(r'applicationId = "([^"]+)"', gradle)
    (least,), (target,) = re.findall(r"minSdk = (\d+)", gradle), re.findall(r"targetSdk = (\d+)", gradle)
    (code,), (name,) = re.findall(r"versionCode = (\d+)", gradle), re.findall(r'versionName = "([^"]+)"', gradle)
    assert f'_PACKAGE, _MIN_SDK, _TARGET_SDK = "{package}", {least}, {target}\n' in plain
    assert f'_VERSION = ({code}, "{name}")\n' in plain
    for abi in re.findall(r'"(arm[^"]+)"', gradle):
        assert f'"{abi}"' in plain
