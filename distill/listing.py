"""`distill ls`: what there is, read from files without importing plugins' libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from rich.console import Group, RenderableType
from rich.table import Table

from distill.config_file import recipes
from distill.core import plugins

if TYPE_CHECKING:
    from distill.students._pretrained import Facts

__all__ = ["Offered", "listing", "offered_students"]


@dataclass(frozen=True)
class Offered:
    """A student that was measured before it was offered.

    Args:
        task: that it serves.
        settings: how it is named in the config: its family first.
        classes: outputs that its figures are with.
        facts: its figures, at the family's own image size.
    """

    task: str
    settings: dict[str, str]
    classes: int
    facts: Facts

    @property
    def name(self) -> str:
        """Such as `deeplabv3plus mobilenetv4_conv_small`."""
        return " ".join(self.settings.values())

    def config(self) -> Any:
        """Settings of its plugin, to build it from random weights."""
        return plugins.load("students", next(iter(self.settings))).Config(**self.settings, pretrained=False)


def offered_students() -> list[Offered]:
    """Every student that is offered, tasks one after another."""
    from distill.students import smp, timm

    return [
        *(Offered("classification", {"timm": name}, 1000, facts) for name, facts in timm.OFFERED.items()),
        *(
            Offered("segmentation", {"smp": head, "encoder": encoder}, 21, facts)
            for (head, encoder), facts in smp.OFFERED.items()
        ),
    ]


def listing(what: str) -> RenderableType:
    """A table of the plugins of a kind or of the recipes; of the students offered, one a task."""
    if what == "students":
        students = offered_students()
        return Group(*(_students(task, students) for task in dict.fromkeys(s.task for s in students)))
    table = Table(title=what, title_justify="left")
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    if what == "recipes":
        for name, path in recipes().items():
            first = path.read_text(encoding="utf-8").split("\n", 1)[0]
            table.add_row(name, first.removeprefix(f"# {name}: "))
        return table
    kind = cast(plugins.Kind, what)
    for name in plugins.names(kind):
        table.add_row(name, plugins.summary(kind, name))
    return table


def _students(task: str, students: list[Offered]) -> Table:
    chosen = [student for student in students if student.task == task]
    table = Table(title=f"students for {task}", title_justify="left")
    size, classes = chosen[0].config().image_size, chosen[0].classes
    table.caption = (
        f"Figures with {classes:,} classes at {size} px. Other names of timm are taken too, without the promise that"
        " int8 is fast."
    )
    for key in chosen[0].settings:
        table.add_column(key, no_wrap=True)
    for heading in ("weights", "MACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why")
    for student in chosen:
        facts = student.facts
        table.add_row(*student.settings.values(), f"{facts.params_m:.2f} M", f"{facts.macs_m:.0f} M", facts.why)
    return table
