"""Who is shown which image next, and what becomes of an answer; safe to use from several threads."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple, final

from distill.data.corrections import Answer, Corrections
from distill.labels.maps import of_size
from distill.review.journal import Journal
from distill.review.runs import mask_of_runs, runs_of
from distill.review.subject import Item, Subject

__all__ = ["Desk", "Refused", "Saved"]

_LEASE: Final = 300.0  # seconds that an image waits for who was given it
_MOST: Final = 32  # images given at once
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
_LONGEST_NAME: Final = 40


class Refused(Exception):  # noqa: N818 - an answer that cannot be taken
    """What was sent makes no sense; the text says why."""


class Saved(NamedTuple):
    """What became of some answers.

    Args:
        keys: of those that are on the disk.
        refused: why, by the key of those that are not.
        undone: the image about which the last of them took an answer back, None if there is none.
    """

    keys: list[str]
    refused: dict[str, str]
    undone: dict[str, Any] | None


@final
class Desk:
    """Gives images out and takes answers in.

    An image that was given to one page is given to no other for five minutes; a page that still has it renews that. An
    image counts as answered when the last word about it is not "I cannot say"; such images come again, behind all
    others.

    Args:
        subject: the images.
        journal: gets the answers.
        everyone: every person is asked about every image, to see how far people agree.
        clock: seconds.
    """

    def __init__(
        self,
        subject: Subject,
        journal: Journal,
        *,
        everyone: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.subject, self._journal, self._everyone, self._clock = subject, journal, everyone, clock
        self._lock = Lock()
        self._leases: dict[str, tuple[str, float]] = {}
        self._of: dict[str, list[int]] = {}  # image -> its answers
        for answer in journal.log.answers.values():
            self._of.setdefault(answer.image, []).append(answer.number)

    def next(
        self, client: str, user: str, count: int, held: Sequence[str], skipped: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Images for a page.

        Args:
            client: one page in one browser.
            user: who sits before it.
            count: images wanted.
            held: images that the page has already; others that it was given are free again.
            skipped: images that it does not want again.

        Raises:
            Refused: a name that is none.
        """
        name_of(user)
        with self._lock:
            now, mine = self._clock(), {*held, *skipped}
            others = {i: lease for i, lease in self._leases.items() if lease[0] != client and lease[1] > now}
            self._leases = {image: (client, now + _LEASE) for image in held if image in self.subject.items} | others
            fresh, passed, elsewhere = list[Item](), list[Item](), 0
            wanted = max(0, min(count, _MOST))
            for image, item in self.subject.items.items():
                if image in mine:
                    continue
                answer, touched = self._standing(image, user)
                if answer is not None:
                    continue
                if not self._everyone and self._leases.get(image, (client, 0.0))[0] != client:
                    elsewhere += 1
                    continue
                (passed if touched else fresh).append(item)
                if len(fresh) == wanted:
                    break
            given = [*fresh, *passed][:wanted]
            for item in given:
                self._leases[item.record.id] = (client, now + _LEASE)
            return {"items": [self._shown(item, user) for item in given], "elsewhere": elsewhere, **self._counts(user)}

    def take(self, user: str, entries: Sequence[dict[str, Any]]) -> Saved:
        """Write answers down; when this returns they are on the disk.

        Args:
            user: who gave them.
            entries: each with a `key` of its own, and either `undo` (key of the answer that is taken back, or empty for
                the person's last one) or `image` and `action`, and with these `label` or `runs`.

        Raises:
            OSError: the disk is full or broken.
        """
        keys, refused, undone = list[str](), dict[str, str](), None
        with self._lock:
            for entry in entries:
                key = entry.get("key") if isinstance(entry, dict) else None
                if not isinstance(key, str) or not _KEY.fullmatch(key):
                    refused[str(key)[:64]] = "an answer has a key of 8 to 64 letters and digits"
                    continue
                try:
                    if key in self._journal.log.keys:  # it came before, but the page was not told
                        pass
                    elif "undo" in entry:
                        undone = self._undo(user, key, entry["undo"])
                    else:
                        self._answer(user, key, entry)
                    keys.append(key)
                except Refused as reason:
                    refused[key] = str(reason)
        return Saved(keys, refused, undone)

    def counts(self, user: str = "") -> dict[str, int]:
        """Images in all, and answered (where everyone is asked, by this person)."""
        with self._lock:
            return self._counts(user)

    def mask(self, image: str, user: str) -> dict[str, Any]:
        """The mask of an image as it stands: what was answered, else what is suggested.

        Raises:
            KeyError: no such image.
            DataError: it is damaged.
        """
        record = self.subject.items[image].record
        with self._lock:
            answer, _ = self._standing(image, user)
        if answer is not None and answer.action == "mask":
            found = Corrections(self.subject.folder, {}).mask(answer, self.subject.classes)
        else:
            found = self.subject.suggested(record)
        width, height = self.subject.shown_size(record)
        return {"width": width, "height": height, "runs": runs_of(of_size(found, width, height))}

    def _answer(self, user: str, key: str, entry: dict[str, Any]) -> None:
        item = self.subject.items.get(str(entry.get("image")))
        action = entry.get("action")
        if item is None:
            raise Refused("no such image")
        row: dict[str, Any] = {"user": name_of(user), "key": key, "image": item.record.id, "action": action}
        if action == "label" and not self.subject.by_pixel:
            if entry.get("label") not in self.subject.classes:
                raise Refused(f"{entry.get('label')!r} is none of the classes")
            row |= {"label": entry["label"], "confirmed": entry["label"] == item.suggestion}
        elif action == "mask" and self.subject.by_pixel:
            row |= self._mask(item, entry.get("runs"))
        elif action not in ("reject", "skip"):
            raise Refused(f"{action!r} is no answer here")
        self._add(row)

    def _mask(self, item: Item, runs: Any) -> dict[str, Any]:
        """A mask at the image's own size; without runs the suggested one."""
        record = item.record
        suggested = self.subject.suggested(record)
        mask = of_size(suggested, record.width, record.height)
        if runs is not None:
            width, height = self.subject.shown_size(record)
            try:
                drawn = mask_of_runs(runs, width, height, len(self.subject.classes))
            except ValueError as error:
                raise Refused(str(error)) from None
            if (drawn != of_size(suggested, width, height)).any():
                mask, runs = of_size(drawn, record.width, record.height), drawn
            else:
                runs = None
        return {"mask": self._journal.keep_mask(mask), "confirmed": runs is None}

    def _undo(self, user: str, key: str, wanted: Any) -> dict[str, Any] | None:
        """Take back an answer of this person, the last one if none is named."""
        log = self._journal.log
        if wanted:
            number = log.keys.get(str(wanted))
        else:
            own = [n for n, answer in log.answers.items() if answer.user == user and n not in log.undone]
            number = own[-1] if own else None
        answer = None if number is None else log.answers.get(number)
        if answer is None or answer.user != user:
            raise Refused("there is nothing to take back")
        if answer.number not in log.undone:
            self._journal.append([{"user": name_of(user), "key": key, "undo": answer.number}])
        item = self.subject.items.get(answer.image)
        return None if item is None else self._shown(item, user)

    def _add(self, row: dict[str, Any]) -> None:
        (answer,) = self._journal.append([row])
        self._of.setdefault(answer.image, []).append(answer.number)
        self._leases.pop(answer.image, None)

    def _standing(self, image: str, user: str) -> tuple[Answer | None, bool]:
        """The last answer that counts for this person, and whether anything was said at all."""
        log, touched = self._journal.log, False
        for number in reversed(self._of.get(image, [])):
            answer = log.answers[number]
            if number in log.undone or (self._everyone and answer.user != user):
                continue
            if answer.action != "skip":
                return answer, True
            touched = True
        return None, touched

    def _counts(self, user: str) -> dict[str, int]:
        answered = sum(self._standing(image, user)[0] is not None for image in self._of if image in self.subject.items)
        return {"total": len(self.subject.items), "answered": answered}

    def _shown(self, item: Item, user: str) -> dict[str, Any]:
        record = item.record
        answer, _ = self._standing(record.id, user)
        return {
            "image": record.id,
            "name": record.path.rsplit("/", 1)[-1],
            "width": record.width,
            "height": record.height,
            "suggestion": item.suggestion,
            "truth": record.labelled,
            "sure": item.sure,
            "said": item.said,
            "others": item.others,
            "answer": None if answer is None else {"action": answer.action, "label": answer.label},
        }


def name_of(user: Any) -> str:
    """A person's name.

    Raises:
        Refused: it is none.
    """
    if not isinstance(user, str) or not user.strip() or len(user) > _LONGEST_NAME or not user.isprintable():
        raise Refused(f"a name has 1 to {_LONGEST_NAME} letters")
    return user
