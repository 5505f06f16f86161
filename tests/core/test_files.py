"""Files appear whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from distill.core.files import digest_of, read_json, replacing, sha256_of, write_json, write_text


def test_the_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new/deep/file.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # on the same disk, or the rename would copy
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stays_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_writes_nothing_is_a_mistake_not_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_the_old_file_stays_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": True})
    program = (
        "import errno, resource, sys\n"
        "from pathlib import Path\n"
        "from distill.core.files import write_json\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_json(Path(sys.argv[1]), {'new': 'x' * 100_000})\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "EFBIG\n"
    assert read_json(path) == {"old": True}
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from distill.core.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"


def test_text_is_utf8_and_ends_as_it_was_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "größe\r\n\n")
    assert (tmp_path / "a").read_bytes() == "größe\r\n\n".encode()


def test_json_keeps_the_order_of_keys_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"z": 1, "a": "ü"})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "z": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"z": float("nan")})
    assert read_json(tmp_path / "a.json") == {"z": 1, "a": "ü"}


def test_read_json_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting property name"):
        read_json(tmp_path / "a.json")
    with pytest.raises(OSError, match="No such file"):
        read_json(tmp_path / "b.json")


def test_hashes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000  # more than one block
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    assert digest_of({"a": 1, "b": [1.5, None, "ü"]}) == digest_of({"b": [1.5, None, "ü"], "a": 1})
    assert digest_of([1, 2]) != digest_of([2, 1])
    assert digest_of({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of(float("inf"))
