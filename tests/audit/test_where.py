"""`--where`: what it understands, and what it says of the rest."""

from __future__ import annotations

import pyarrow as pa
import pytest

from distill.audit.where import columns_of, filtered
from distill.core.errors import UserError

TABLE = pa.table(
    {
        "path": ["a", "glass/b", "c"],
        "split": ["test", "train", None],
        "blur": [0.9, 0.1, None],
        "n": pa.array([1, 0, 2], pa.int64()),
        "leak": [True, False, False],
        "shares": [{"cat": 0.1, "a b": 1.0}, {"cat": 0.9, "a b": 0.0}, None],
    }
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("split == 'test' and blur > 0.8", "a"),
        ("split == 'test' or n == 2", "ac"),
        ("leak", "a"),
        ("not leak", "bc"),
        ("leak == False", "bc"),
        ("split == None", "c"),
        ("split is not None", "ab"),
        ("split != 'test'", "b"),
        ("0.05 < blur <= 0.5", "b"),
        ("not (blur > 0.5)", "b"),
        ("split in ['test', 'other']", "a"),
        ("n not in (0, 2)", "a"),
        ("'glass' in path", "b"),
        ("'GLASS' in path", ""),
        ("shares['cat'] > 0.5", "b"),
        ("shares['a b'] == 1", "a"),
        ("1 / n > 100", "b"),
        ("n * 2 - 1 == blur * 0 + 1", "a"),
        ("-n < -1", "c"),
        ("n > 1e400", ""),
        ("n == 99999999999999999999999", ""),
        ("1 == 1", "abc"),
        ("  leak  ", "a"),
    ],
)
def test_rows_that_fit(where: str, expected: str) -> None:
    assert "".join(row[-1] for row in filtered(TABLE, where)["path"].to_pylist()) == expected


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("blurr > 1", "there is no column blurr (did you mean blur?); columns: path, split, blur, n, leak, shares"),
        ("split > 3", "split is text, but 3 is a number: they cannot be compared"),
        ("split", "it is no condition"),
        ("leak and 3", "3 is a number, expected a condition"),
        ("shares > 1", "the column shares has parts: name one"),
        ("shares['dog'] > 1", "there is no 'dog' in shares; it has cat, a b"),
        ("n['cat'] > 1", "the column n has no parts"),
        ("n % 2 == 0", "n % 2: BinOp is not understood"),
        ("__import__('os').system('x')", "Call is not understood"),
        ("path.__class__ == 'x'", "Attribute is not understood"),
        ("[x for x in path]", "ListComp is not understood"),
        ("(lambda: 1)()", "Call is not understood"),
        ("f'{n}' == 'x'", "JoinedStr is not understood"),
        ("leak if leak else leak", "IfExp is not understood"),
        ("(m := 1) > 0", "NamedExpr is not understood"),
        ("split in [1]", "1 is in the list for split, which is text"),
        ("n in path", "expected a list, or 'text' in a column of text"),
        ("None == None", "None is only compared by == and !="),
        ("split < None", "None is only compared by == and !="),
        ("split + 'x' == 'y'", "split is text, expected a number"),
        ("", "invalid syntax"),
        ("a b", "invalid syntax"),
        ("leak\nleak", "invalid syntax"),
        ("(" * 900 + "1" + ")" * 900, "--where"),
        ("not " * 300 + "leak", "expected at most 50"),
        ("leak" + " " * 3000, "expected at most 2000"),
        ("path == '\ud800'", "surrogates not allowed"),
        ("path == '\0'", "null"),
    ],
)
def test_what_it_says_of_mistakes(where: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        filtered(TABLE, where)
    assert sentence in str(caught.value)
    str(caught.value).encode()


def test_columns_that_an_expression_names() -> None:
    assert columns_of("blur > 0.5 and (split == 'test' or blur < 0.1)", tuple(TABLE.column_names)) == ("blur", "split")
