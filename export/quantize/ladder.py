"""Ways to write an int8 file, cheapest first, climbed until one keeps what was promised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distill.core.types import Images
from distill.torch_predictor import Network
from export.quantize.plan import Int8Plan, keep_noisy_layers_float, minimum_and_maximum, search_ranges

__all__ = ["FLOAT16", "LARGEST_DROP", "QUANTIZATION_AWARE", "TITLES", "Ladder", "Rung"]

TITLES: Final = {
    1: "minimum and maximum, biases corrected",
    2: "ranges searched, channels equalized",
    3: "noisiest layers float",
    4: "learnt on while rounded",
    5: "weights as float16",
}
"""What each rung does."""

QUANTIZATION_AWARE: Final = 4
"""The rung on which the student learns on."""

FLOAT16: Final = 5
"""The rung above the last int8 one."""

LARGEST_DROP: Final = 0.005
"""What may be lost on validation where `gates.max_int8_drop` says nothing: half a point."""


@dataclass(frozen=True)
class Rung:
    """What came of one way.

    Args:
        number: of the rung.
        plan: that the file was made by; None for float16.
        facts: `bytes`, `partitions`, `latency_ratio` (of int8 over float32, None where not timed), `agreement`, `drop`
            (with its paired interval) and the metric, on validation.
        lacking: why it does not do; empty if it does.
    """

    number: int
    plan: Int8Plan | None
    facts: dict[str, Any]
    lacking: str

    def __str__(self) -> str:
        drop, ratio, partitions = self.facts["drop"], self.facts["latency_ratio"], self.facts["partitions"]
        parts = [f"{self.facts['bytes'] / 1e6:.2f} MB"]
        parts += [f"{ratio:.2f} of the time of float32"] if ratio is not None else []
        parts += [f"{partitions} partition{'s' * (partitions != 1)}"] if partitions is not None else []
        parts.append(f"lost {drop['value']:.3f} [{drop['low']:.3f}, {drop['high']:.3f}] on validation")
        return f"rung {self.number} ({TITLES[self.number]}): {', '.join(parts)}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        kept = {} if self.plan is None else {"float_layers": sorted(self.plan.float_layers), "snr_db": self.plan.snr_db}
        return {"rung": self.number, "title": TITLES[self.number], **self.facts, **kept, "lacking": self.lacking}


class Ladder:
    """Plans of one student, each made when it is asked for.

    Args:
        student: in evaluation mode.
        calibration: images uint8 [1, S, S, 3].
        float_layers: names of its layers that stay float on every rung.
        tune: trains a student on under fake quantization that begins with a plan; for rung 4.
    """

    def __init__(
        self,
        student: Network,
        calibration: Sequence[Images],
        float_layers: frozenset[str],
        tune: Callable[[Int8Plan], Int8Plan],
    ) -> None:
        self._student, self._calibration, self._float_layers, self._tune = student, calibration, float_layers, tune
        self._made: dict[int, Int8Plan] = {}

    def plan(self, rung: int) -> Int8Plan | None:
        """How the file of a rung is written; None where that is how the one below is."""
        if rung not in self._made:
            self._made[rung] = self._plan(rung)
        made = self._made[rung]
        return None if rung == 3 and made is self.plan(2) else made

    def _plan(self, rung: int) -> Int8Plan:
        if rung == 1:
            return minimum_and_maximum(self._student, self._calibration, self._float_layers)
        if rung == 2:
            return search_ranges(self._student, self._calibration, self._float_layers)
        below = self.plan(2)
        assert below is not None
        if rung == 3:
            return keep_noisy_layers_float(self._student, below)
        # Equalized weights are no place to learn from: steps of one size are too large for some, too small for others.
        begin = below if below.uncorrected is self._student else self.plan(1)
        assert begin is not None
        return self._tune(begin)
