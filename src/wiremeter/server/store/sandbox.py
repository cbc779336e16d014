"""Decides which SQL of users may run: one SELECT, over the store's own tables, with functions that only compute.

`readonly` is no sandbox in the embedded engine: its scalar function file() reads files, and queries write with INTO
OUTFILE. So four locks, each for what the others miss:

1. the engine's user has no grants to reach out of its tables (files.py);
2. the engine itself parses the text, and gives it back on one line without comments; several statements are refused;
3. here, that text is read again, and whatever is not on a list is refused: every word before a parenthesis must be a
   function that is allowed, every table one of ours, every piece of syntax known;
4. the very same text then runs on a connection with limits of time, memory and rows, and with readonly on top.

What is allowed is listed, what is not is refused, and what cannot be understood is refused, too.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import cast

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.dialects.clickhouse import ClickHouse
from sqlglot.errors import SqlglotError

from wiremeter.errors import InputError
from wiremeter.server.store.allowed import FORBIDDEN, FUNCTIONS, KEYWORDS, TABLES
from wiremeter.server.store.errors import Refused

#: Longest text that is looked at, in bytes.
TEXT_MAX = 20_000
#: Deepest nesting of parentheses and brackets.
DEPTH_MAX = 60


class SqlRefused(InputError):
    """The text is no query that may run; the message says what in it may not be."""


#: Syntax, by sqlglot's classes. Functions are not here: their names are checked word by word.
_SYNTAX: tuple[type[exp.Expr], ...] = (
    *(exp.Select, exp.Union, exp.Except, exp.Intersect, exp.Subquery, exp.Paren, exp.Tuple, exp.Alias, exp.Aliases),
    *(
        exp.With,
        exp.CTE,
        exp.TableAlias,
        exp.Table,
        exp.Column,
        exp.Identifier,
        exp.Star,
        exp.Dot,
        exp.Literal,
        exp.Null,
    ),
    *(exp.From, exp.Join, exp.Where, exp.PreWhere, exp.Group, exp.Having, exp.Qualify, exp.Order, exp.Ordered),
    *(exp.Limit, exp.Offset, exp.Distinct, exp.Window, exp.WindowSpec, exp.Lambda, exp.Bracket, exp.Array, exp.Slice),
    *(
        exp.DataType,
        exp.DataTypeParam,
        exp.Interval,
        exp.Var,
        exp.Boolean,
        exp.In,
        exp.Between,
        exp.Is,
        exp.Not,
        exp.Neg,
    ),
    *(exp.Binary, exp.Case, exp.If, exp.Any, exp.Fetch),
)
#: Classes that are functions to sqlglot and none to us; arrayJoin is one to us.
_NO_FUNCTIONS = (exp.Apply, exp.Values, exp.Lateral, exp.TableFromRows, exp.Unnest, exp.Generator)
#: Parts that a SELECT may have; others, such as `into`, `settings` and `format`, may not be there.
_SELECT_PARTS = frozenset(
    (
        *("with_", "expressions", "distinct", "from_", "joins", "prewhere", "where", "group"),
        *("having", "qualify", "windows", "order", "limit", "offset"),
    )
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def allowed_text(sql: str, one_line: Callable[[str], str]) -> str:
    """The text that may run in place of `sql`.

    one_line: the engine's formatQuerySingleLine, which raises for what it cannot parse.
    Raises SqlRefused, which says what may not be, and what `one_line` raises.
    """
    if len(sql.encode("utf-8", "replace")) > TEXT_MAX:
        raise SqlRefused(f"the query is longer than {TEXT_MAX} bytes")
    if "\0" in sql:
        raise SqlRefused("the query has a NUL in it")
    if not sql.strip():
        raise SqlRefused("the query is empty")
    try:
        text = one_line(sql)
    except Refused as error:  # in which the question around it is nothing to whoever asked
        raise Refused(str(error).partition(": In scope SELECT formatQuerySingleLine(")[0], code=error.code) from None
    _check_words(_tokens(text))
    _check_syntax(_parsed(text))
    return text


def _tokens(text: str) -> list[Token]:
    try:
        tokens = ClickHouse.Tokenizer().tokenize(text)
    except SqlglotError as error:
        raise SqlRefused(f"the query cannot be read: {_first_line(error)}") from None
    if any(token.comments for token in tokens):  # the engine left none, so the two read it differently
        raise SqlRefused("the query cannot be read for certain: something in it looks like a comment")
    return tokens


def _check_words(tokens: list[Token]) -> None:
    depth = 0
    for token, following in itertools.zip_longest(tokens, tokens[1:]):
        is_quoted = token.token_type in (TokenType.IDENTIFIER, TokenType.STRING)
        if token.token_type in (TokenType.L_BRACE, TokenType.R_BRACE, TokenType.SEMICOLON, TokenType.PARAMETER):
            raise SqlRefused(f"{token.text!r} may not be in a query")
        if token.token_type == TokenType.IDENTIFIER and ("\\" in token.text or "`" in token.text):
            raise SqlRefused(f"the name {token.text!r} may not be in a query")
        if not is_quoted and token.text.upper() in FORBIDDEN:
            raise SqlRefused(f"{token.text} may not be in a query; as a name, put it in backticks")
        if token.token_type in (TokenType.L_PAREN, TokenType.L_BRACKET):
            depth += 1
            if depth > DEPTH_MAX:
                raise SqlRefused(f"the query is nested deeper than {DEPTH_MAX} levels")
        elif token.token_type in (TokenType.R_PAREN, TokenType.R_BRACKET):
            depth -= 1
        if following is not None and following.token_type == TokenType.L_PAREN:
            _check_before_parenthesis(token, is_quoted)


def _check_before_parenthesis(token: Token, is_quoted: bool) -> None:
    if token.token_type == TokenType.STRING:
        raise SqlRefused("a string stands where a function should be")
    if not _WORD.fullmatch(token.text):
        if is_quoted:
            raise SqlRefused(f"there is no function {token.text!r}")
        return  # an operator, a comma, another parenthesis
    if token.text.lower() in FUNCTIONS or (not is_quoted and token.text.upper() in KEYWORDS):
        return
    raise SqlRefused(f"the function {token.text} is not allowed; docs/store.md lists those that are")


def _parsed(text: str) -> exp.Query:
    try:
        statements = sqlglot.parse(text, read="clickhouse")
    except (SqlglotError, RecursionError) as error:
        raise SqlRefused(f"the query cannot be read: {_first_line(error)}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Select | exp.SetOperation | exp.Subquery):
        raise SqlRefused("only SELECT is allowed, one at a time")
    return cast(exp.Query, statements[0])


def _check_syntax(query: exp.Query) -> None:
    own = {cte.alias for cte in query.find_all(exp.CTE)}
    for node in query.walk():
        if not isinstance(node, (*_SYNTAX, exp.Func)) or isinstance(node, _NO_FUNCTIONS):
            raise SqlRefused(f"{type(node).__name__} may not be in a query: {_excerpt(node)}")
        if isinstance(node, exp.Select):
            for part, value in node.args.items():
                if value and part not in _SELECT_PARTS:
                    raise SqlRefused(f"{part.strip('_').upper()} may not be in a query")
        elif isinstance(node, exp.Table):
            _check_table(node, own)
        elif isinstance(node, exp.In):
            _check_in(node)
        elif isinstance(node, exp.Column) and node.args.get("db"):
            raise SqlRefused(f"{_excerpt(node)}: names of databases may not be in a query")


def _check_table(table: exp.Table, own: set[str]) -> None:
    if not isinstance(table.this, exp.Identifier):
        raise SqlRefused(f"{_excerpt(table)} is no table of the store")
    if table.args.get("db") or table.args.get("catalog"):
        raise SqlRefused(f"{_excerpt(table)}: names of databases may not be in a query; name the table alone")
    if table.name not in TABLES and table.name not in own:
        raise SqlRefused(f"there is no table {table.name} to read; those are {', '.join(sorted(TABLES))}")


def _check_in(node: exp.In) -> None:
    """A lone name behind IN is a table to the engine, whatever it looks like."""
    expressions = node.expressions
    is_name = len(expressions) == 1 and isinstance(expressions[0].unnest(), exp.Column | exp.Identifier | exp.Dot)
    if node.args.get("field") or is_name:
        raise SqlRefused(f"{_excerpt(node)}: behind IN stands a list of values, or (SELECT …)")


def _excerpt(node: exp.Expr) -> str:
    try:
        text = node.sql(dialect="clickhouse")
    except (SqlglotError, RecursionError, ValueError):
        return type(node).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"


def _first_line(error: BaseException) -> str:
    return re.sub(r"\x1b\[\d*m", "", str(error)).split("\n")[0][:200]
