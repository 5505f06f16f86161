"""The one tree of exceptions, each with the exit code its command ends with.

DistillError
├── UserError            2  something the user gave or can change
│   ├── ConfigError      2  every mistake of a config, with file and line
│   ├── DataError        2  images, folders, manifests
│   ├── CheckpointError  2  weights that do not fit the model
│   ├── TeacherError     2  a teacher that cannot teach these classes
│   ├── RunFolderError   2  a run folder that cannot be used
│   └── DeviceError      2  a phone that cannot be had, or that went away
├── StoreError           2  a label store that is damaged or stale
├── AuditFailed          3  the images have something that makes scores or truth wrong
├── ArtifactError        3  an exported file that did not answer right
├── SanityFailed         3  a check of what training starts from failed
├── DriftFound           3  new images are not what the student was judged on
└── GateFailed           3  the run finished, a promise in `gates:` does not hold
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ArtifactError",
    "AuditFailed",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DistillError",
    "DriftFound",
    "GateFailed",
    "Problem",
    "RunFolderError",
    "SanityFailed",
    "StoreError",
    "TeacherError",
    "UserError",
]


class DistillError(Exception):
    """Base of everything this project raises on purpose; its text is shown without a traceback."""

    exit_code = 2


class UserError(DistillError):
    """Something the user gave, or can change."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a config.

    Args:
        where: file and line (`teacher.yaml:4`) or the flag it came from (`--set`).
        key: dotted key, empty for the document itself.
        message: what was found and what would be right.
    """

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.message}" if self.key else f"{self.where}: {self.message}"


class ConfigError(UserError):
    """All mistakes of one config at once.

    Args:
        source: name of the config, for the headline.
        problems: at least one mistake, in the order of the file.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 mistake" if len(self.problems) == 1 else f"{len(self.problems)} mistakes"
        super().__init__("\n".join([f"{source} has {count}:", *(f"  {p}" for p in self.problems)]))


class DataError(UserError):
    """Images, folders or manifests that cannot be used."""


class CheckpointError(UserError):
    """Weights that do not fit the model they were given for."""


class TeacherError(UserError):
    """A teacher that cannot teach these classes."""


class RunFolderError(UserError):
    """A run folder that cannot be created, written or continued."""


class DeviceError(UserError):
    """A device that cannot be had, does not do as it is told, or went away."""


class StoreError(DistillError):
    """A label store that is damaged or belongs to other inputs."""


class ArtifactError(DistillError):
    """An exported file that does not open, crashes, or answers differently from the student."""

    exit_code = 3


class AuditFailed(DistillError):  # noqa: N818 - not an error of the audit
    """The audit is written, and found that scores or truth are wrong."""

    exit_code = 3


class SanityFailed(DistillError):  # noqa: N818 - the check did its work
    """What a training would start from has one of the classic bugs."""

    exit_code = 3


class GateFailed(DistillError):  # noqa: N818 - not an error: the run went well
    """The run finished and all artifacts are kept, but a gate does not hold."""

    exit_code = 3


class DriftFound(DistillError):  # noqa: N818 - not an error: the images were looked at
    """New images differ from those that the student was judged on; everything was written."""

    exit_code = 3
