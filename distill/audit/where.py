"""`--where`: an expression in Python's words becomes one of Arrow's; nothing of it is ever run as Python."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from distill.core.errors import UserError
from distill.report.wording import printable

__all__ = ["columns_of", "filtered"]

Kind = Literal["text", "number", "truth", "none"]

_LONGEST: Final = 2000  # characters; Python's parser ends the process where brackets nest some 10,000 deep
_DEEPEST: Final = 50
_COMPARED: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}
_COMPUTED: Final[Mapping[type[ast.operator], str]] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
}
_HELP: Final = (
    "expected comparisons of columns, such as split == 'test' and blur > 0.8, joined by and, or, not; also in, + - * /,"
    " 'text' in path, label == None, shares['cat'] > 0.5"
)


class _Term(NamedTuple):
    """A part of the expression: Arrow's expression, or a constant, and what kind of value it is."""

    value: Any
    kind: Kind
    text: str


def filtered(table: Any, where: str) -> Any:
    """The rows of a table for which an expression holds; a missing value makes no comparison true.

    Args:
        table: a pyarrow table.
        where: the expression.

    Raises:
        UserError: it is no such expression, names no column, or compares text with numbers; names the known columns.
    """
    import pyarrow as pa

    builder = _Builder(table.schema)
    term = builder.build(_parsed(where).body)
    if term.kind != "truth" or isinstance(term.value, bool):
        raise _refused(where, "it is no condition")
    try:
        return table.filter(term.value)
    except (pa.ArrowException, OverflowError) as error:
        raise _refused(where, str(error)) from error


def columns_of(where: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Columns that an expression names, in the order in which it does, each once."""
    names = [node for node in ast.walk(_parsed(where)) if isinstance(node, ast.Name)]
    names.sort(key=lambda node: (node.lineno, node.col_offset))
    return tuple(dict.fromkeys(node.id for node in names if node.id in known))


def _parsed(where: str) -> ast.Expression:
    if len(where) > _LONGEST:
        raise UserError(f"--where: {len(where)} characters, expected at most {_LONGEST}")
    try:
        tree = ast.parse(where.strip(), mode="eval")
        deep = _depth(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(where, error.msg if isinstance(error, SyntaxError) else str(error)) from None
    if deep > _DEEPEST:
        raise _refused(where, f"it nests {deep} deep, expected at most {_DEEPEST}")
    return tree


def _depth(node: ast.AST) -> int:
    return 1 + max((_depth(child) for child in ast.iter_child_nodes(node)), default=0)


def _refused(where: str, reason: str) -> UserError:
    shown = where if len(where) <= 200 else where[:200] + "…"
    return UserError(printable(f"--where: {shown}: {reason}; {_HELP}"))


class _Builder:
    """Turns nodes into terms, and refuses all that is not named here."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def build(self, node: ast.AST) -> _Term:
        text = ast.unparse(node)
        match node:
            case ast.Name():
                return self._column(node.id)
            case ast.Constant(value=None):
                return _Term(None, "none", text)
            case ast.Constant(value=bool() as value):
                return _Term(value, "truth", text)
            case ast.Constant(value=int() | float() as value):
                return _Term(float(value) if abs(value) < 2**63 else float("inf"), "number", text)
            case ast.Constant(value=str() as value):
                return _Term(value, "text", text)
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str() as key)):
                return self._part(name, key)
            case ast.BoolOp(op=op, values=values):
                terms = [self._condition(value) for value in values]
                joined = terms[0].value
                for term in terms[1:]:
                    joined = joined & term.value if isinstance(op, ast.And) else joined | term.value
                return _Term(joined, "truth", text)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _Term(~self._condition(operand).value, "truth", text)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                term = self._number(operand)
                return _Term(-term.value if isinstance(term.value, float) else _call("negate", term), "number", text)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTED:
                return _Term(_call(_COMPUTED[type(op)], self._number(left), self._number(right)), "number", text)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._compared(text, [left, *comparators], ops)
        raise UserError(f"--where: {text}: {type(node).__name__} is not understood; {_HELP}")

    def _column(self, name: str) -> _Term:
        import pyarrow.compute as pc

        self._known(name)
        return self._term(pc.field(name), self._schema.field(name).type, name)

    def _known(self, name: str) -> None:
        if name not in self._schema.names:
            near = difflib.get_close_matches(name, self._schema.names, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"--where: there is no column {name}{meant}; columns: {', '.join(self._schema.names)}")

    def _part(self, name: str, key: str) -> _Term:
        import pyarrow as pa
        import pyarrow.compute as pc

        self._known(name)
        kind = self._schema.field(name).type
        if not pa.types.is_struct(kind):
            raise UserError(f"--where: {name}[{key!r}]: the column {name} has no parts")
        parts = [kind.field(number).name for number in range(kind.num_fields)]
        if key not in parts:
            raise UserError(f"--where: {name}[{key!r}]: there is no {key!r} in {name}; it has {', '.join(parts)}")
        return self._term(pc.field(name, key), kind.field(parts.index(key)).type, f"{name}[{key!r}]")

    def _term(self, expression: Any, kind: Any, text: str) -> _Term:
        import pyarrow as pa

        if pa.types.is_boolean(kind):
            return _Term(expression, "truth", text)
        if pa.types.is_string(kind):
            return _Term(expression, "text", text)
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return _Term(expression.cast(pa.float64()), "number", text)  # so that 1 / 0 is infinite, not an error
        raise UserError(f"--where: the column {text} has parts: name one, such as {text}['cat']")

    def _condition(self, node: ast.AST) -> _Term:
        import pyarrow.compute as pc

        term = self.build(node)
        if term.kind != "truth":
            raise UserError(f"--where: {term.text} is {_said(term.kind)}, expected a condition; {_HELP}")
        return term._replace(value=pc.scalar(term.value)) if isinstance(term.value, bool) else term

    def _number(self, node: ast.AST) -> _Term:
        term = self.build(node)
        if term.kind != "number":
            raise UserError(f"--where: {term.text} is {_said(term.kind)}, expected a number")
        return term

    def _compared(self, text: str, nodes: list[ast.expr], ops: list[ast.cmpop]) -> _Term:
        joined = None
        for left, op, right in zip(nodes, ops, nodes[1:], strict=False):
            one = self._pair(left, op, right)
            joined = one if joined is None else joined & one
        return _Term(joined, "truth", text)

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Any:
        import pyarrow.compute as pc

        if isinstance(op, (ast.In, ast.NotIn)):
            inside = self._inside(left, right)
            return ~inside if isinstance(op, ast.NotIn) else inside
        first, second = self.build(left), self.build(right)
        if "none" in {first.kind, second.kind}:
            other = second if first.kind == "none" else first
            if other.kind == "none" or not isinstance(op, (ast.Eq, ast.NotEq, ast.Is, ast.IsNot)):
                raise UserError(f"--where: {first.text} and {second.text}: None is only compared by == and !=")
            empty = pc.is_null(_expression(other))
            return empty if isinstance(op, (ast.Eq, ast.Is)) else ~empty
        if type(op) not in _COMPARED:
            raise UserError(f"--where: {first.text} and {second.text}: expected one of == != < <= > >= in")
        if first.kind != second.kind:
            raise UserError(
                f"--where: {first.text} is {_said(first.kind)}, but {second.text} is {_said(second.kind)}:"
                " they cannot be compared"
            )
        return _call(_COMPARED[type(op)], first, second)

    def _inside(self, left: ast.expr, right: ast.expr) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        term = self.build(left)
        if isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            values = [self.build(element) for element in right.elts]
            wrong = next(
                (v for v in values if v.kind != term.kind or not isinstance(v.value, (str, float, bool))), None
            )
            if wrong is not None:
                raise UserError(f"--where: {wrong.text} is in the list for {term.text}, which is {_said(term.kind)}")
            kinds = {"text": pa.string(), "number": pa.float64(), "truth": pa.bool_()}
            among = pa.array([value.value for value in values], type=kinds[term.kind])
            return pc.is_in(_expression(term), value_set=among)
        whole = self.build(right)
        if not isinstance(term.value, str) or whole.kind != "text":
            raise UserError(f"--where: {term.text} in {whole.text}: expected a list, or 'text' in a column of text")
        return pc.match_substring(_expression(whole), term.value)


def _expression(term: _Term) -> Any:
    import pyarrow.compute as pc

    return pc.scalar(term.value) if isinstance(term.value, (str, float, bool)) else term.value


def _call(name: str, *terms: _Term) -> Any:
    import pyarrow.compute as pc

    return getattr(pc, name)(*map(_expression, terms))


def _said(kind: Kind) -> str:
    return {"text": "text", "number": "a number", "truth": "true or false", "none": "nothing"}[kind]
