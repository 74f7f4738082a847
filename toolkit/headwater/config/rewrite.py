"""Change a pipeline file so that every line that need not change stays as it is, comments included.

`rewrite` compares what the text says with what it should say, and cuts only what differs into the text.
What comes out is read again: it says exactly what was wanted, or nothing is returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from headwater.errors import ConfigError

#: What YAML can say: text, numbers, dates, lists, mappings.
Doc: TypeAlias = Any

_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BREAKS = frozenset("\x85\u2028\u2029\ufeff")
_BY_HAND = "edit the file by hand; what you wanted is shown above as it would be in a file without them"


@dataclass(frozen=True, slots=True)
class _Cut:
    """Replace the characters from `begin` up to `end`."""

    begin: int
    end: int
    text: str


class _Unclear(Exception):
    """The text has a shape that is not edited."""


def read_doc(text: str) -> Doc:
    """What a text says, unchecked; raises ConfigError where it is not YAML."""
    try:
        return yaml.load(text, Loader=_LOADER)  # noqa: S506  the safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, RecursionError):
        raise ConfigError("the file is not YAML", hint="headwater check   (names the line)") from None


def rewrite(text: str, wanted: Mapping[str, Doc]) -> str:
    """The text with as few changes as make it say `wanted`; raises ConfigError where that cannot be done."""
    before = read_doc(text)
    if same(before, wanted):
        return text
    try:
        node = yaml.compose(text, Loader=_LOADER)
        if not isinstance(node, yaml.MappingNode) or node.flow_style or not isinstance(before, dict):
            raise _Unclear
        changed = _apply(text, list(_Editor(text).mapping(node, before, wanted)))
        if not same(read_doc(changed), wanted):
            raise _Unclear
    except (_Unclear, yaml.YAMLError, ConfigError):
        message = "the file is written in a way that is not edited here (anchors, tags or odd indentation)"
        raise ConfigError(message, hint=_BY_HAND) from None
    return changed


def same(one: Doc, other: Doc) -> bool:
    """Whether two documents say the same; unlike `==` it tells 1 from true."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


def write_flow(value: Doc) -> str:
    """A value on one line, as it may stand anywhere in a file."""
    plain = _BREAKS.isdisjoint(str(value))
    # In a list of its own, so that what ends a value inside brackets is quoted.
    text = yaml.safe_dump(
        [value], default_flow_style=True, width=1 << 30, allow_unicode=plain, sort_keys=False
    )
    return text.strip().removeprefix("[").removesuffix("]")


def write_block(value: Doc) -> str:
    """A value behind `key: ` or `- ` on a line of its own."""
    if isinstance(value, list | tuple | Mapping):
        return write_flow(value)
    plain = _BREAKS.isdisjoint(str(value))
    return yaml.safe_dump(value, width=1 << 30, allow_unicode=plain).removesuffix("...\n").strip()


def _apply(text: str, cuts: Sequence[_Cut]) -> str:
    parts: list[str] = []
    at = 0
    for cut in sorted(cuts, key=lambda c: (c.begin, c.end)):
        if cut.begin < at:
            raise _Unclear
        parts += [text[at : cut.begin], cut.text]
        at = cut.end
    return "".join([*parts, text[at:]])


def _name(entry: Doc) -> Doc:
    """What a list entry is known by."""
    return entry.get("name") if isinstance(entry, Mapping) else entry


class _Editor:
    """Finds the cuts in one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def mapping(
        self, node: yaml.MappingNode, old: Mapping[str, Doc], new: Mapping[str, Doc]
    ) -> Iterator[_Cut]:
        """The cuts that turn one mapping into another."""
        pairs = {str(k.value): (k, v) for k, v in node.value}
        if len(pairs) != len(node.value) or list(pairs) != [str(k) for k in old]:
            raise _Unclear
        order = list(pairs)
        gone = [name for name in order if name not in new]
        kept = [name for name in order if name in new]
        if not kept:
            raise _Unclear
        yield from self._remove_keys(node, order, set(gone))
        for name in kept:
            if not same(old[name], new[name]):
                yield from self._value(*pairs[name], old[name], new[name])
        added = {k: v for k, v in new.items() if k not in pairs}
        if added:
            yield self._add_keys(node, added)

    def _value(self, key: yaml.Node, value: yaml.Node, old: Doc, new: Doc) -> Iterator[_Cut]:
        """The cuts that give a key another value."""
        in_block = self._opens_line(key)
        if isinstance(value, yaml.MappingNode) and isinstance(old, dict) and isinstance(new, Mapping):
            if any(k in new for k in old):
                yield from self.mapping(value, old, new)
                return
        elif isinstance(value, yaml.SequenceNode) and self._is_edited(old, new):
            yield from self._list(value, old, new)
            return
        colon = self._text.find(":", key.end_mark.index)
        end = max(self._end(value), colon + 1)
        if colon < 0 or self._text[key.end_mark.index : colon].strip() or value.start_mark.index < colon:
            raise _Unclear  # an explicit `? key`, or an alias of what stands elsewhere
        yield _Cut(colon + 1, end, " " + (write_block(new) if in_block else write_flow(new)))

    def _opens_line(self, key: yaml.Node) -> bool:
        """Whether nothing but dashes stands before a key on its line: it is not inside brackets."""
        begin = int(key.start_mark.index)
        return not self._text[self._text.rfind("\n", 0, begin) + 1 : begin].strip(" -")

    def _is_edited(self, old: Doc, new: Doc) -> bool:
        """Whether the new list is the old one with entries taken out, changed in place, and added behind."""
        if not (isinstance(old, list) and isinstance(new, list)):
            return False
        before, after = [str(_name(e)) for e in old], [str(_name(e)) for e in new]
        known, wanted = set(before), set(after)
        stays = [n for n in before if n in wanted]
        unlike = len(known) < len(before) or len(wanted) < len(after)
        return bool(stays) and not unlike and after[: len(stays)] == stays

    def _list(self, node: yaml.SequenceNode, old: Sequence[Doc], new: Sequence[Doc]) -> Iterator[_Cut]:
        wanted = {_name(e): e for e in new}
        known = {_name(e) for e in old}
        gone = [n for n, entry in enumerate(old) if _name(entry) not in wanted]
        items = node.value
        if node.flow_style:
            yield from self._remove_flow([(i, i) for i in items], set(gone))
        else:
            yield from (self._remove_item(items[n]) for n in gone)
        for item, entry in zip(items, old, strict=True):
            if _name(entry) in wanted and not same(entry, wanted[_name(entry)]):
                yield from self._item(item, entry, wanted[_name(entry)], flow=bool(node.flow_style))
        added = [e for e in new if _name(e) not in known]
        if added:
            yield self._add_items(node, added)

    def _item(self, item: yaml.Node, old: Doc, new: Doc, *, flow: bool) -> Iterator[_Cut]:
        begin, end = item.start_mark.index, self._end(item)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and isinstance(item, yaml.MappingNode):
            yield from self.mapping(item, old, new)
        elif isinstance(new, Mapping) and not flow and isinstance(item, yaml.ScalarNode):
            # The line stays, with its comment; the settings go below it.
            yield _Cut(begin, begin, "name: ")
            rest = {k: v for k, v in new.items() if k != "name"}
            yield _Cut(self._line_end(end), self._line_end(end), self._lines(rest, item.start_mark.column))
        else:
            yield _Cut(begin, end, write_flow(new) if flow else write_block(new))

    def _remove_keys(self, node: yaml.MappingNode, order: Sequence[str], gone: set[str]) -> Iterator[_Cut]:
        if node.flow_style:
            yield from self._remove_flow(node.value, {n for n, name in enumerate(order) if name in gone})
            return
        first_kept = next(n for n, name in enumerate(order) if name not in gone)
        if first_kept:
            # What follows takes the place of the first key: a dash may stand before it.
            begin = node.value[0][0].start_mark.index
            yield _Cut(begin, node.value[first_kept][0].start_mark.index, "")
        for n, (key, value) in enumerate(node.value):
            if order[n] in gone and n > first_kept:
                yield self._whole_lines(key.start_mark.index, self._end(value))

    def _remove_flow(self, pairs: Sequence[tuple[yaml.Node, yaml.Node]], gone: set[int]) -> Iterator[_Cut]:
        kept = [n for n in range(len(pairs)) if n not in gone]
        if kept[0]:
            yield _Cut(pairs[0][0].start_mark.index, pairs[kept[0]][0].start_mark.index, "")
        for n in gone:
            if n > kept[0]:
                yield _Cut(self._end(pairs[n - 1][1]), self._end(pairs[n][1]), "")

    def _remove_item(self, item: yaml.Node) -> _Cut:
        dash = self._text.rfind("-", 0, item.start_mark.index)
        if dash < 0 or self._text[dash + 1 : item.start_mark.index].strip():
            raise _Unclear
        return self._whole_lines(dash, self._end(item))

    def _whole_lines(self, begin: int, end: int) -> _Cut:
        """Lines from the one that `begin` is the first word of, with the line end before them."""
        start = self._text.rfind("\n", 0, begin)
        if self._text[start + 1 : begin].strip():
            raise _Unclear
        stop = self._line_end(end)
        if self._text[end:stop].strip() and not self._text[end:stop].lstrip().startswith("#"):
            raise _Unclear
        if start < 0:
            return _Cut(0, min(len(self._text), self._text.find("\n", stop) + 1 or len(self._text)), "")
        return _Cut(start - (self._text[start - 1 : start] == "\r"), stop, "")

    def _add_keys(self, node: yaml.MappingNode, added: Mapping[str, Doc]) -> _Cut:
        last = self._end(node.value[-1][1]) if node.value else -1
        last = max(last, node.value[-1][0].end_mark.index) if node.value else -1
        if last < 0:
            raise _Unclear
        if node.flow_style:
            return _Cut(last, last, "".join(f", {write_flow(k)}: {write_flow(v)}" for k, v in added.items()))
        if last == node.value[-1][0].end_mark.index:
            last = self._text.find(":", last) + 1  # a last key without a value
        at = self._line_end(last)
        return _Cut(at, at, self._lines(added, node.value[0][0].start_mark.column))

    def _add_items(self, node: yaml.SequenceNode, added: Sequence[Doc]) -> _Cut:
        last = node.value[-1]
        if node.flow_style:
            return _Cut(self._end(last), self._end(last), "".join(f", {write_flow(e)}" for e in added))
        dash = node.start_mark.column
        at = self._line_end(self._end(last))
        return _Cut(at, at, "".join(self._entry(e, dash) for e in added))

    def _entry(self, entry: Doc, column: int) -> str:
        """A list entry on lines of its own."""
        head = f"{self._newline}{' ' * column}- "
        if not isinstance(entry, Mapping):
            return head + write_block(entry)
        return head + self._lines(entry, column + 2).lstrip()

    def _lines(self, values: Mapping[str, Doc], column: int) -> str:
        """`key: value` lines, each with the line end before it; lists of entries get a line for each."""
        made = ""
        for key, value in values.items():
            made += f"{self._newline}{' ' * column}{write_flow(key)}:"
            if isinstance(value, list) and column == 0:
                made += "".join(self._entry(e, 2) for e in value)
            else:
                made += f" {write_block(value)}"
        return made

    def _line_end(self, at: int) -> int:
        end = self._text.find("\n", at)
        if end < 0:
            return len(self._text.rstrip("\r\n")) if at <= len(self._text.rstrip("\r\n")) else len(self._text)
        return end - (self._text[end - 1 : end] == "\r" and end > at)

    def _end(self, node: yaml.Node) -> int:
        """Where a node's last character is; PyYAML ends blocks at what comes next."""
        if isinstance(node, yaml.ScalarNode):
            end = int(node.end_mark.index)
            return len(self._text[:end].rstrip()) if node.style in ("|", ">") else end
        assert isinstance(node, yaml.CollectionNode)
        if node.flow_style or not node.value:
            return int(node.end_mark.index)
        last = node.value[-1]
        if not isinstance(last, tuple):
            return max(self._end(last), int(last.start_mark.index))
        end = self._end(last[1])
        if end < last[0].end_mark.index:
            raise _Unclear  # an alias
        return end
