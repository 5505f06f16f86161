"""A share of the label shards, for schedulers that start the same command many times."""

from __future__ import annotations

import re
from typing import NamedTuple

from distill.core.errors import UserError

__all__ = ["Share"]


class Share(NamedTuple):
    """Share `number` of `total`, from 1 on."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read `2/8`.

        Raises:
            UserError: it is no share.
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip(), re.ASCII)
        share = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= share.number <= share.total:
            raise UserError(
                f"--shard: found {text!r}, expected I/N with I from 1 to N, such as 1/8 for the first of eight"
            )
        return share

    def of(self, shards: int) -> range:
        """Every N-th shard: neighbours are asked about at the same time, and no share is longer by more than one."""
        return range(self.number - 1, shards, self.total)
