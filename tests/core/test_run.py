"""The run folder: what is done stays done, what changed is made anew."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distill import __version__
from distill.core.errors import RunFolderError
from distill.core.files import read_json, write_json
from distill.core.run import FORMAT, Run, latest_run

HOLD = (
    "import sys\n"
    "from pathlib import Path\n"
    "from distill.core.run import Run\n"
    "with Run(Path(sys.argv[1])).lock():\n"
    "    print('held', flush=True)\n"
    "    sys.stdin.readline()\n"
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs/first")


def error(do: object, *arguments: object) -> str:
    with pytest.raises(RunFolderError) as caught:
        do(*arguments)  # type: ignore[operator]
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_new_folder_says_what_made_it(run: Run) -> None:
    assert read_json(run.root / "run.json") == {"format": FORMAT, "version": __version__}
    assert Run(run.root).root == run.root


def test_creating_again_opens_what_is_there(run: Run) -> None:
    run.begin("data", "f")
    run.finish("data", "f", 1.0, {"images": 3})
    assert Run.create(run.root).done("data", "f") is not None


def test_a_stage_is_done_only_after_finish_and_only_for_its_fingerprint(run: Run) -> None:
    assert run.done("labels", "one") is None
    folder = run.begin("labels", "one")
    assert folder == run.folder("labels") == run.root / "labels"
    assert run.done("labels", "one") is None
    run.finish("labels", "one", 12.345, {"images": 3})
    done = run.done("labels", "one")
    assert done is not None
    assert (done["stage"], done["fingerprint"], done["version"]) == ("labels", "one", __version__)
    assert (done["seconds"], done["summary"]) == (12.35, {"images": 3})
    assert run.summary("labels") == {"images": 3}
    assert run.done("labels", "two") is None
    assert run.done("data", "one") is None


def test_unfinished_work_of_the_same_fingerprint_goes_on(run: Run) -> None:
    (run.begin("labels", "one") / "shard-0").write_text("work")
    assert (run.begin("labels", "one") / "shard-0").read_text() == "work"


def test_work_of_another_fingerprint_is_discarded(run: Run) -> None:
    (run.begin("labels", "one") / "shard-0").write_text("work")
    run.finish("labels", "one", 1.0, {})
    folder = run.begin("labels", "two")
    assert sorted(p.name for p in folder.iterdir()) == ["started.json"]
    assert run.done("labels", "one") is None


def test_other_stages_are_left_alone(run: Run) -> None:
    (run.begin("data", "one") / "manifest").write_text("work")
    run.begin("labels", "one")
    run.begin("labels", "two")
    assert (run.folder("data") / "manifest").read_text() == "work"


def test_beginning_a_finished_stage_makes_it_unfinished(run: Run) -> None:
    run.begin("labels", "one")
    run.finish("labels", "one", 1.0, {})
    run.begin("labels", "one")
    assert run.done("labels", "one") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff"])
def test_a_damaged_stage_is_not_done(run: Run, content: bytes) -> None:
    folder = run.begin("labels", "one")
    (folder / "shard-0").write_text("work")
    (folder / "stage.json").write_bytes(content)
    assert run.done("labels", "one") is None
    assert error(run.summary, "labels") == (
        f"{run.root}: the stage labels is not finished; `distill run` goes on with it"
    )
    (folder / "started.json").write_bytes(content)
    assert not (run.begin("labels", "one") / "shard-0").exists()


def test_a_summary_of_a_stage_that_never_began(run: Run) -> None:
    assert error(run.summary, "report").endswith("the stage report is not finished; `distill run` goes on with it")


def test_a_run_of_another_format_is_refused_and_left_as_it_is(run: Run) -> None:
    write_json(run.root / "run.json", {"format": FORMAT + 1, "version": "9.0"})
    before = (run.root / "run.json").read_bytes()
    told = error(Run.create, run.root)
    assert (
        told
        == error(Run, run.root)
        == (
            f"{run.root} was made by another version (format {FORMAT + 1}, this is mobile-distill {__version__} with"
            f" format {FORMAT}). Choose another `output`, or go on with the version that made it"
        )
    )
    assert (run.root / "run.json").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3"])
def test_a_damaged_mark(run: Run, content: str) -> None:
    (run.root / "run.json").write_text(content)
    told = error(Run, run.root)
    assert told.startswith(f"{run.root / 'run.json'} is damaged (")
    assert told.endswith(f"): delete {run.root} or choose another `output`")


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("I am a file")
    file = tmp_path / "runs"
    assert error(Run.create, file) == f"output: {file} is a file, expected a folder or nothing at {file}"
    below = file / "first/second"
    assert error(Run.create, below) == f"output: {file} is a file, expected a folder or nothing at {below}"
    assert file.read_text() == "I am a file"


def test_a_folder_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    assert error(Run.create, tmp_path) == f"output: {tmp_path} holds files that no run made; choose a new folder"
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert Run.create(tmp_path).root == tmp_path


def test_a_folder_that_a_kill_left_before_it_was_marked(tmp_path: Path) -> None:
    (tmp_path / ".run.json.0a1b2c3d.tmp").write_text('{"form')
    assert Run.create(tmp_path).root == tmp_path


def test_a_folder_that_is_not_ours() -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from distill.core.errors import RunFolderError\n"
        "from distill.core.run import Run\n"
        "if os.getuid() == 0:\n"
        "    os.setuid(65534)\n"  # root may do everything
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        Run.create(Path(path))\n"
        "    except RunFolderError as error:\n"
        "        print(error)\n"
    )
    with tempfile.TemporaryDirectory() as parent:
        closed, locked = Path(parent) / "closed", Path(parent) / "locked"
        closed.mkdir(mode=0o555)
        locked.mkdir(mode=0o000)
        Path(parent).chmod(0o755)
        arguments = [sys.executable, "-c", program, closed / "run", locked / "run"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"output: cannot write to {closed}/run (Permission denied)",
        f"output: cannot write to {locked}/run (Permission denied)",
    ]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert error(Run, tmp_path) == f"{tmp_path} is no run folder (found no run.json in it); `distill run` makes one"


def test_a_folder_that_cannot_be_made() -> None:
    assert error(Run.create, Path("/proc/nothing/run")).startswith("output: cannot write to /proc/nothing/run (")


def test_the_lock_is_held_against_another_process_and_let_go_when_it_dies(run: Run) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, run.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        said = error(run.lock().__enter__)
        assert said.startswith(f"{run.root} is in use by process {holder.pid} on {platform.node()} since 20")
        assert said.endswith(f"Z (`{shlex.join(['-c', str(run.root)])}`)")
        holder.kill()
    with run.lock():
        pass
    with run.lock():
        pass


def test_what_a_killed_holder_left_in_the_lock_misleads_nobody(run: Run) -> None:
    (run.root / ".lock").write_text('{"pid": 1, "host": "elsewhere", "since": "2001", "command": "distill run"}')
    with run.lock():
        assert read_json(run.root / ".lock")["pid"] == os.getpid()
    (run.root / ".lock").write_text("no JSON, and longer than what a holder would say of itself" * 10)
    with run.lock():
        assert read_json(run.root / ".lock")["pid"] == os.getpid()


def test_a_child_works_under_its_parents_lock_and_keeps_it_when_the_parent_is_killed(run: Run) -> None:
    """The parent starts a child as the pipeline starts the exporters; the child may lock, others may not."""
    parent = HOLD.replace(
        "    print('held', flush=True)\n",
        "    import subprocess\n"
        "    from distill.core.run import locks_held\n"
        f"    subprocess.Popen([sys.executable, '-c', {HOLD!r}, sys.argv[1]], pass_fds=locks_held())\n",
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent, run.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert f"in use by process {holder.pid} on" in error(run.lock().__enter__)
        holder.kill()
        holder.wait()
        said = error(run.lock().__enter__)
        assert f"in use by a process that outlived process {holder.pid} on" in said and "wait until it ends" in said
        holder.stdin.close()  # which ends the child, since its input is its parent's
        holder.stdout.read()
    with run.lock():
        pass


def test_shares_hold_the_folder_beside_each_other_and_against_all_others(run: Run) -> None:
    with run.lock_with_others(), run.lock_with_others():
        said = error(run.lock().__enter__)
    assert f"in use by processes that label a share each, the last to begin being process {os.getpid()}" in said
    with run.lock():
        pass


def test_another_folder_is_not_held_by_an_inherited_lock(run: Run, tmp_path: Path) -> None:
    other = Run.create(tmp_path / "runs/second")
    with run.lock(), other.lock(), run.lock():
        assert read_json(other.root / ".lock")["pid"] == os.getpid()


def test_a_file_system_without_locks_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert "cannot be locked (No locks available)" in error(run.lock().__enter__)


def test_what_a_kill_left_half_written_is_removed(run: Run) -> None:
    folder = run.begin("labels", "one")
    torn = folder / "predictions" / ".test.parquet.0123abcd.tmp"
    kept = [folder / "notes.tmp", folder / ".hidden.tmp", run.root / ".mine.0123.tmp"]
    for path in (torn, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    with run.lock():
        pass
    assert not torn.exists()
    assert all(path.exists() for path in kept)


def test_work_under_way_is_known_by_its_fingerprint(run: Run) -> None:
    assert not run.begun("labels", "one")
    run.begin("labels", "one")
    assert run.begun("labels", "one") and not run.begun("labels", "two")


def test_the_latest_run_is_the_one_worked_on_last(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "c", "a")):
        run = Run.create(tmp_path / name)
        with run.lock():
            pass
        os.utime(run.root / ".lock", ns=(number, number))
    (tmp_path / "d").mkdir()
    assert latest_run(tmp_path) == tmp_path / "a"
    os.utime(tmp_path / "b/.lock", ns=(10, 10))
    assert latest_run(tmp_path) == tmp_path / "b"


def test_no_latest_run(tmp_path: Path) -> None:
    told = f"found no run in {tmp_path}; name one with --run, or make one with `distill run`"
    assert error(latest_run, tmp_path) == told
