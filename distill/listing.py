"""`distill ls`: what there is, read from files without importing plugins' libraries."""

from __future__ import annotations

from typing import cast

from rich.table import Table

from distill.config_file import recipes
from distill.core import plugins

__all__ = ["listing"]


def listing(what: str) -> Table:
    """A table of the plugins of a kind, of the students offered, or of the recipes."""
    table = Table(title=what, title_justify="left")
    if what == "students":
        return _students(table)
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


def _students(table: Table) -> Table:
    from distill.students.timm import OFFERED

    table.caption = "with 1,000 classes at 224 px; any other timm name is taken too, without this promise"
    table.add_column("name", no_wrap=True)
    for heading in ("family", "parameters", "MACs"):
        table.add_column(heading, justify="left" if heading == "family" else "right", no_wrap=True)
    table.add_column("why")
    for name, facts in OFFERED.items():
        table.add_row(name, "timm", f"{facts.params_m:.2f} M", f"{facts.macs_m:.0f} M", facts.why)
    return table
