"""Damaged and hostile bytes end in an answer or a sentence, never in another exception."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS, Reader

_WORDS = [b"\0", b"\xff\xff\xff\xff", b"[", b"]", b"{", b"}", b'"', b"-1", b"1e999", b"null", b"\n", b","]
_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["set", "delete", "insert", "repeat", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=6)
        | st.sampled_from(
            [b"\0", b"\xff\xff\xff\xff", b"[", b"]", b"{", b"}", b'"', b"-1", b"1e999", b"null", b"\n", b","]
        ),
    ),
    min_size=1,
    max_size=6,
)


def _changed(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for what, where, given_bytes in changes:
        at = int(where * len(content))
        if what == "set":
            content = content[:at] + given_bytes + content[at + len(given_bytes) :]
        elif what == "delete":
            content = content[:at] + content[at + len(given_bytes) :]
        elif what == "insert":
            content = content[:at] + given_bytes + content[at:]
        elif what == "repeat":
            content = content[:at] + content[at : at + 40] * 20 + content[at:]
        else:
            content = content[:at]
    return content


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_good_file_is_read(reader: Reader, tmp_path: Path) -> None:
    reader.read(reader.good, tmp_path)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_damage_is_refused_or_does_no_harm(reader: Reader) -> None:
    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(_CHANGES)
    def holds(changes: list[tuple[str, float, bytes]]) -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            reader.read(_changed(reader.good, changes), folder)
        except reader.refusals as refusal:
            assert str(refusal).strip()
        finally:
            shutil.rmtree(folder)

    holds()


def test_the_guided_fuzzer_runs_and_finds_nothing_in_a_second(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs atheris, of the extra dev")
    command = [sys.executable, "-m", "tests.fuzz.guided", "mask-labelme", "--seconds", "1"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={**os.environ, "TMPDIR": str(tmp_path)}, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(root.glob("crash-*"))
