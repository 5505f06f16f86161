"""`audit.json`: the one definition, which docs/audit.schema.json is printed from."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["FORMAT", "LISTED", "Document", "Finding", "Found", "FoundPair", "Level", "Measured", "SplitFacts"]

FORMAT: Final = 1
"""Raised when a field changes its meaning or goes away."""

LISTED: Final = 1000
"""Images or pairs listed of a finding; `audit.parquet` marks all."""

Level = Literal["error", "warning", "note"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Found(_Part):
    """An image of a finding."""

    path: str
    """Absolute path."""
    split: str | None
    """train, validation or test; null where a run leaves it out."""
    label: str | None
    """Its class, if it has one."""
    detail: str
    """What was found of this image."""


class FoundPair(_Part):
    """Two images of a finding."""

    first: Found
    """The one that a run leaves out, where it leaves one out."""
    second: Found
    """The other."""
    detail: str
    """How they are alike."""


class Finding(_Part):
    """One kind of thing that was found."""

    kind: str
    """Name; where it is about single images also a column of `audit.parquet`."""
    level: Level
    """error: scores or truth are wrong; warning: look at these; note: good to know."""
    title: str
    """What was found, in a few words."""
    meaning: str
    """What it means and what to do."""
    rule: str
    """By which bound it was found."""
    count: int
    """How many images, pairs or classes."""
    images: list[Found] = []
    """The first 1,000."""
    pairs: list[FoundPair] = []
    """The first 1,000."""
    classes: list[str] = []
    """Classes that it is about."""


class SplitFacts(_Part):
    """A split as a run would use it."""

    images: int
    """Images in it."""
    labelled: int
    """Those with truth that may be seen."""
    by_class: dict[str, int]
    """Labelled images by class, of masks those in which it occurs."""
    pixel_shares: dict[str, float]
    """Share of each class among all pixels that are not ignored; empty without masks."""


class Measured(_Part):
    """A figure over all images that could be read."""

    unit: str
    """What it is."""
    least: float
    """Minimum."""
    p5: float
    """5th percentile."""
    median: float
    """Median."""
    p95: float
    """95th percentile."""
    largest: float
    """Maximum."""
    edges: list[float]
    """Of the histogram's bins, one more than bins; values beyond the ends count to the outer bins."""
    counts: dict[str, list[int]]
    """Images in each bin, by split."""


class LabelSource(_Part):
    """Class probabilities that labels were compared with."""

    by: str
    """Where they came from."""
    images: int
    """Images they were asked about."""
    accuracy: float
    """Share of these whose label is the likeliest class."""


class Document(_Part):
    """What `distill audit` found."""

    format: Literal[1] = FORMAT
    """Of this document."""
    version: str
    """Of mobile-distill."""
    fingerprint: str
    """Changes when files, settings or the tool change."""
    kind: Literal["config", "run", "folder"]
    """What was audited."""
    name: str
    """Of the config, run or folder."""
    task: str
    """classification or segmentation."""
    classes: list[str]
    """In the order of the outputs."""
    files: int
    """Files that were named: rows of `audit.parquet`."""
    splits: dict[str, SplitFacts]
    """By name."""
    left_out: dict[str, int]
    """Files that a run would not use, by reason."""
    levels: dict[Level, int]
    """How many findings there are of each."""
    findings: list[Finding]
    """The gravest first."""
    measures: dict[str, Measured]
    """Figures by column of `audit.parquet`."""
    labels: list[LabelSource]
    """What labels were compared with."""
    notes: Annotated[list[str], Field(default_factory=list)]
    """What could not be looked at, and why."""

    @property
    def errors(self) -> list[Finding]:
        """Findings that end the command with exit code 3."""
        return [finding for finding in self.findings if finding.level == "error"]
