"""The filter language: `status <> 'test' and amount >= 10`. No I/O; its page: docs/tables.md.

    filter  = and ("or" and)*          and = not ("and" not)*          not = "not"* one
    one     = "(" filter ")" | column
            | column op value | value op column          op = one of OPS
            | column ["not"] "in" "(" constant ("," constant)* ")"
            | column ["not"] "between" constant "and" constant
            | column ["not"] "like" text
            | column "is" ["not"] "null"
    value   = column | constant
    column  = plain name | '"' any name, each quote doubled '"'          as the source spells it
    constant = number | 'text, each quote doubled' | true | false

There is nothing else: no function, no arithmetic, no query. `parse_predicate` reads it, `str` prints it back;
headwater.filters evaluates it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NoReturn

from headwater.errors import ConfigError
from headwater.pointing import point

OPS = ("=", "<>", "!=", "<=", ">=", "<", ">")
_FLIPPED = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_WORDS = frozenset({"and", "or", "not", "in", "between", "like", "is", "null", "true", "false"})
_DEEPEST = 50
_TOKEN = re.compile(
    r"""\s*(?: (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?![\w.]))
        | (?P<text>'(?:[^']|'')*')
        | (?P<quoted>"(?:[^"]|"")+")
        | (?P<word>[^\W\d][\w$]*)
        | (?P<sign><>|!=|<=|>=|[=<>(),]) )""",
    re.VERBOSE,
)
_PLAIN = re.compile(r"[^\W\d][\w$]*")
_EXAMPLE = "for example: status <> 'test' and amount >= 10"

Constant = Decimal | str | bool


@dataclass(frozen=True, slots=True)
class Name:
    """A column, by its name at the source; `at`: where it stands."""

    name: str
    at: int = field(default=0, compare=False)

    def __str__(self) -> str:
        if _PLAIN.fullmatch(self.name) and self.name.lower() not in _WORDS:
            return self.name
        return '"' + self.name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison."""

    column: Name
    op: str
    value: Constant | Name

    def __str__(self) -> str:
        return f"{self.column} {self.op} {_written(self.value)}"


@dataclass(frozen=True, slots=True)
class Among:
    """One of some constants."""

    column: Name
    values: tuple[Constant, ...]

    def __str__(self) -> str:
        return f"{self.column} in ({', '.join(map(_written, self.values))})"


@dataclass(frozen=True, slots=True)
class Like:
    """A text with `%` for any characters, `_` for one, and a backslash before one that stands for itself."""

    column: Name
    pattern: str

    def __str__(self) -> str:
        return f"{self.column} like {_written(self.pattern)}"


@dataclass(frozen=True, slots=True)
class IsNull:
    """No value."""

    column: Name

    def __str__(self) -> str:
        return f"{self.column} is null"


@dataclass(frozen=True, slots=True)
class Flag:
    """A column that is true."""

    column: Name

    def __str__(self) -> str:
        return str(self.column)


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; unknown stays unknown."""

    inner: Node

    def __str__(self) -> str:
        return f"not {_wrapped(self.inner)}"


@dataclass(frozen=True, slots=True)
class All:
    """Every one of them."""

    inner: tuple[Node, ...]

    def __str__(self) -> str:
        return " and ".join(map(_wrapped, self.inner))


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of them."""

    inner: tuple[Node, ...]

    def __str__(self) -> str:
        return " or ".join(map(_wrapped, self.inner))


Node = Test | Among | Like | IsNull | Flag | Not | All | Some


@dataclass(frozen=True, slots=True)
class Predicate:
    """A filter and its text."""

    node: Node
    text: str

    def __str__(self) -> str:
        return str(self.node)

    def names(self) -> list[Name]:
        """The columns it looks at, each time it does."""
        return list(_names(self.node))

    def refuse(self, name: Name, what: str, hint: str) -> ConfigError:
        """The error that points at a column."""
        return point(self.text, name.at, what, hint)


def parse_predicate(text: str) -> Predicate:
    """Read a filter; raises ConfigError that points at what it stumbled over."""
    return Predicate(_Parser(text).whole(), text)


def _written(value: Constant | Name) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _wrapped(node: Node) -> str:
    return f"({node})" if isinstance(node, All | Some | Not) else str(node)


def _names(node: Node) -> Iterator[Name]:
    if isinstance(node, All | Some):
        for inner in node.inner:
            yield from _names(inner)
    elif isinstance(node, Not):
        yield from _names(node.inner)
    else:
        yield node.column
        if isinstance(node, Test) and isinstance(node.value, Name):
            yield node.value


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number | text | quoted | word | sign | end
    text: str
    at: int


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._place = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._some()
        if self._now.kind != "end":
            self._stop("`and` or `or` is expected here")
        return node

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text.rstrip()):
            found = _TOKEN.match(self._text, at)
            if found is None or found.lastgroup is None:
                raise self._unreadable(at)
            yield _Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup))
            at = found.end()
        yield _Token("end", "", len(self._text))

    def _unreadable(self, at: int) -> ConfigError:
        at += len(self._text[at:]) - len(self._text[at:].lstrip())
        mark = self._text[at]
        if mark in "'\"":
            return point(self._text, at, f"the {mark} that ends this is missing", _EXAMPLE)
        hint = "a filter has columns, constants, comparisons, and, or, not; no arithmetic and no functions"
        return point(self._text, at, "a filter has no such sign", hint)

    @property
    def _now(self) -> _Token:
        return self._tokens[self._place]

    def _stop(self, what: str, hint: str = _EXAMPLE) -> NoReturn:
        raise point(self._text, self._now.at, what, hint)

    def _take(self, *wanted: str) -> bool:
        """Go on if one of these words or signs stands here."""
        token = self._now
        if token.kind in ("word", "sign") and token.text.lower() in wanted:
            self._place += 1
            return True
        return False

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            self._stop(f"`{wanted}` is expected here")

    def _some(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._stop("too many parentheses in each other")
        found = [self._all()]
        while self._take("or"):
            found.append(self._all())
        self._depth -= 1
        return found[0] if len(found) == 1 else Some(tuple(found))

    def _all(self) -> Node:
        found = [self._not()]
        while self._take("and"):
            found.append(self._not())
        return found[0] if len(found) == 1 else All(tuple(found))

    def _not(self) -> Node:
        turned = False
        while self._take("not"):
            turned = not turned
        node = self._one()
        return Not(node) if turned else node

    def _one(self) -> Node:
        if self._take("("):
            node = self._some()
            self._need(")")
            return node
        left = self._value()
        if not isinstance(left, Name):
            op = self._op() or self._stop("a comparison is expected here")
            right = self._value()
            if not isinstance(right, Name):
                self._place -= 1
                self._stop("two constants are compared: one side must be a column")
            return Test(right, _FLIPPED[op], left)
        if op := self._op():
            return Test(left, op, self._value())
        return self._phrase(left)

    def _phrase(self, column: Name) -> Node:
        if self._take("is"):
            turned = self._take("not")
            self._need("null")
            return _turn(IsNull(column), turned)
        turned = self._take("not")
        if self._take("in"):
            return _turn(Among(column, tuple(self._list())), turned)
        if self._take("between"):
            low = self._constant()
            self._need("and")
            return _turn(All((Test(column, ">=", low), Test(column, "<=", self._constant()))), turned)
        if self._take("like"):
            return _turn(Like(column, self._pattern()), turned)
        if turned:
            self._stop("`in`, `between` or `like` is expected here")
        if self._now.text == "(":
            hint = "a filter has columns, constants and comparisons; no functions"
            raise point(self._text, column.at, "a filter has no functions", hint)
        return Flag(column)

    def _op(self) -> str:
        token = self._now
        if token.kind == "sign" and token.text in OPS:
            self._place += 1
            return "<>" if token.text == "!=" else token.text
        return ""

    def _list(self) -> Sequence[Constant]:
        self._need("(")
        values = [self._constant()]
        while self._take(","):
            values.append(self._constant())
        self._need(")")
        return values

    def _pattern(self) -> str:
        token, value = self._now, self._constant()
        if not isinstance(value, str):
            raise point(self._text, token.at, "`like` takes a text", "for example: name like 'A%'")
        if len(value) - len(value.rstrip("\\")) & 1:
            raise point(self._text, token.at, "the backslash at its end stands before nothing", "write two")
        return value

    def _constant(self) -> Constant:
        value = self._value()
        if isinstance(value, Name):
            raise point(self._text, value.at, "a constant is expected here", "texts stand in 'quotes'")
        return value

    def _value(self) -> Constant | Name:
        token = self._now
        made = self._read(token)
        self._place += 1
        return made

    def _read(self, token: _Token) -> Constant | Name:
        word = token.text.lower() if token.kind == "word" else ""
        if word == "null":
            self._stop("nothing equals null", "write: column is null, or: column is not null")
        if token.kind == "number":
            return Decimal(token.text)
        if token.kind == "text":
            return token.text[1:-1].replace("''", "'")
        if token.kind == "quoted":
            return Name(token.text[1:-1].replace('""', '"'), token.at)
        if word in ("true", "false"):
            return word == "true"
        if not word or word in _WORDS:
            self._stop("a column or a constant is expected here")
        return Name(token.text, token.at)


def _turn(node: Node, turned: bool) -> Node:
    return Not(node) if turned else node
