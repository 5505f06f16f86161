"""What the driver asks of the benchmark inside the sample app, and what the app answers: one definition for both sides.

`docs/benchmark-on-a-phone.md` shows both documents. A plan is one measurement of one file in a process of its own, so
a crash or a hang belongs to one file; rounds, their order and cooling are the driver's.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

__all__ = [
    "FORMAT",
    "INSTRUMENTATION",
    "PACKAGE",
    "Failure",
    "Input",
    "Memory",
    "Model",
    "Outputs",
    "Plan",
    "Result",
    "read_result",
]

FORMAT: Final = 1
"""Of plan and result; raised when either changes its meaning."""
PACKAGE: Final = "org.mobiledistill.sample"
INSTRUMENTATION: Final = f"{PACKAGE}/.BenchmarkInstrumentation"

Measure = Literal["latency", "memory", "parity"]
Delegate = Literal["xnnpack", "none", "nnapi"]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Milliseconds = Annotated[float, Field(gt=0, lt=1e7, allow_inf_nan=False)]
_Line = Annotated[str, Field(max_length=2000)]


class _Part(BaseModel):
    """Closed, and as strict as JSON allows: an unknown key or a number as text is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Model(_Part):
    """The file to run."""

    path: str
    """Absolute, readable by apps."""
    sha256: _Sha256
    """Of its bytes; the app compares before it opens it."""
    bytes: Annotated[int, Field(gt=0)]
    """Its size."""


class Input(_Part):
    """Tensors to feed, raw bytes one after another; invocation k takes tensor k mod count."""

    path: str
    """Absolute, readable by apps."""
    sha256: _Sha256
    """Of its bytes."""
    count: Annotated[int, Field(ge=1)]
    """How many tensors."""
    dtype: Literal["uint8"]
    """Camera bytes."""
    shape: tuple[Literal[1], int, int, Literal[3]]
    """Of one tensor: [1, S, S, 3] RGB."""


class Plan(_Part):
    """One measurement."""

    format: Literal[1]
    """Of this document."""
    id: _Id
    """Names the result's files."""
    measure: Measure
    """latency: time each of `runs`; memory: peak of the process after them; parity: what it answers to each input."""
    model: Model
    """The file."""
    input: Input
    """What it is shown."""
    threads: Annotated[int, Field(ge=1, le=8)]
    """Of the interpreter."""
    delegate: Delegate
    """none: the interpreter's own kernels. One that is not to be had is an error, never silently another."""
    warmup: Annotated[int, Field(ge=0)]
    """Invocations before, not timed."""
    runs: Annotated[int, Field(ge=1)]
    """Invocations; `parity` has one an input instead."""


class Memory(_Part):
    """Of the app's process, from /proc/self/status."""

    before_kb: Annotated[int, Field(gt=0)]
    """VmRSS before the file is opened."""
    peak_kb: Annotated[int, Field(gt=0)]
    """VmHWM after the runs."""


class Outputs(_Part):
    """What the file answered, raw little-endian bytes of its output, one after another."""

    file: Annotated[str, Field(pattern=r"^[0-9a-f]{16}\.outputs$")]
    """In the folder of the result."""
    sha256: _Sha256
    """Of its bytes."""
    bytes: Annotated[int, Field(gt=0)]
    """Its size."""
    count: Annotated[int, Field(ge=1)]
    """How many answers."""
    dtype: Literal["float32", "uint8", "int8", "int32"]
    """Of the output."""
    shape: list[Annotated[int, Field(ge=1)]]
    """Of one answer."""


class Failure(_Part):
    """Why there is no measurement."""

    kind: Literal["plan", "model", "hash", "delegate", "memory", "other"]
    """plan: not understood; model: missing or refused; hash: other bytes than planned; memory: out of it."""
    message: _Line
    """One line for a person."""


class Result(_Part):
    """What came of a plan; also written where it failed."""

    format: Literal[1]
    """Of this document."""
    id: _Id
    """Of the plan."""
    measure: Measure
    """Of the plan."""
    app: _Line
    """Its version."""
    runtime: _Line
    """Name and version."""
    abi: _Line
    """Of the process, such as `armeabi-v7a`."""
    model_sha256: _Sha256 | None
    """Of the bytes that were read."""
    threads: int
    """As used."""
    delegate: Delegate
    """As used."""
    load_ms: _Milliseconds | None
    """Mapping, interpreter and tensors."""
    samples_ms: list[_Milliseconds]
    """`runs` of them for `latency`, in order; else none."""
    memory: Memory | None
    """For `memory`."""
    outputs: Outputs | None
    """For `parity`."""
    error: Failure | None
    """Why it failed."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.error is None:
            given = {"latency": bool(self.samples_ms), "memory": self.memory is not None}
            given["parity"] = self.outputs is not None
            wrong = [name for name, there in given.items() if there != (name == self.measure)]
            if wrong:
                raise ValueError(f"a result of {self.measure} with {', '.join(wrong)} missing or too much")
        return self

    def answers(self, plan: Plan) -> str:
        """Why this is not what was asked for; empty if it is."""
        asked = {"id": plan.id, "measure": plan.measure}
        if self.error is None:
            asked |= {"threads": str(plan.threads), "delegate": plan.delegate, "model_sha256": plan.model.sha256}
        for key, value in asked.items():
            if str(getattr(self, key)) != value:
                return f"{key} is {getattr(self, key)}, asked for {value}"
        if self.error is None and plan.measure == "latency" and len(self.samples_ms) != plan.runs:
            return f"{len(self.samples_ms)} times, asked for {plan.runs}"
        return ""


def read_result(text: str) -> Result | str:
    """A result, or what is wrong with it, in one line."""
    try:
        return Result.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else str(first["msg"])
