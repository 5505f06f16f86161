"""What `distill review` does: serve the page, sum up, or exchange answers with other tools."""

from __future__ import annotations

import getpass
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distill.core.errors import UserError
from distill.core.run import Run
from distill.data.corrections import JOURNAL, Log, read_journal
from distill.report.wording import count
from distill.review.desk import Desk, Refused, name_of
from distill.review.exchange import Format, export_answers, import_answers
from distill.review.journal import Journal
from distill.review.server import Server
from distill.review.subject import Only, Subject, of_folder, of_run
from distill.review.summary import describe, gather

__all__ = ["describe", "export", "import_from", "open_subject", "serve", "summary"]


def open_subject(path: Path, only: Only, classes: Sequence[str]) -> Subject:
    """What a path holds: a run, or a folder of photos.

    Raises:
        UserError: classes for a run, which has its own; a folder without classes; no image.
    """
    if not (path / "run.json").is_file():
        return of_folder(path, [name.strip() for name in classes])
    if classes:
        raise UserError("--classes: a run has its own classes; expected a folder of photos")
    return of_run(Run(path), only)


def serve(
    subject: Subject, *, port: int, user: str | None, everyone: bool, browser: bool, say: Callable[[str], object]
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        subject: the images.
        port: on 127.0.0.1; 0 for any free one.
        user: name that the page begins with; that of the system's user if left out.
        everyone: each person is asked about each image.
        browser: open one.
        say: told what happens.

    Raises:
        UserError: there is nothing to review, a name that is none, or the port is taken.
        RunFolderError: another process reviews the same images.
    """
    if not subject.items:
        raise UserError(f"{subject.title}: no image is to be reviewed")
    journal = Journal(subject.folder, subject.classes)
    try:
        if journal.torn:
            say(f"cut off {journal.torn} bytes of an answer that was not whole and not acknowledged")
        desk = Desk(subject, journal, everyone=everyone)
        server = Server(desk, port, _name(user))

        def ready(url: str) -> None:
            counts = desk.counts()
            say(f"{count(counts['answered'])} of {count(counts['total'])} images are answered; answers are saved in")
            say(str(subject.folder / JOURNAL))
            say(f"open {url}")
            say("Ctrl-C ends it")
            if browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        server.serve(ready)
        counts = desk.counts()
        say(f"{count(counts['answered'])} of {count(counts['total'])} images are answered; the same command goes on")
    finally:
        journal.close()


def summary(subject: Subject) -> dict[str, Any]:
    """Who answered what, and how far people agree.

    Raises:
        DataError: the journal is damaged.
    """
    return gather(subject, _log(subject))


def export(subject: Subject, path: Path, kind: Format, user: str | None) -> str:
    """Write the answers, or those of one person; says what was written.

    Raises:
        UserError: the folder holds something; the journal is damaged.
    """
    return f"{path}: {count(export_answers(subject, _log(subject).truth(user), path, kind))} answers"


def import_from(subject: Subject, path: Path, kind: Format, user: str | None) -> str:
    """Take answers from a file; says what was added.

    Raises:
        DataError: what is wrong in the file.
        RunFolderError: the page is being served.
    """
    journal = Journal(subject.folder, subject.classes)
    try:
        added, known = import_answers(subject, journal, path, kind, _name(user) if user else kind)
    finally:
        journal.close()
    return f"{path}: {count(added)} answers added, {count(known)} were known"


def _log(subject: Subject) -> Log:
    path = subject.folder / JOURNAL
    return read_journal(path) if path.exists() else Log()


def _name(user: str | None) -> str:
    try:
        return name_of(user or getpass.getuser())
    except Refused as reason:
        raise UserError(f"--user: {reason}") from None
    except (OSError, KeyError):  # a container without an entry for this user
        return "me"
