"""A certificate as a page: one HTML file that needs no network, for screen and paper. No cell values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, cast

from headwater.printable import printable

#: So many keys of a table are shown; the JSON has more.
SHOWN = 100

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

Doc = Mapping[str, Any]


def make_page(document: Mapping[str, object], sha256: str) -> str:
    """The page of a certificate; `sha256` is that of its JSON file."""
    doc = cast(Doc, document)
    style = files("headwater.certificate").joinpath("page.css").read_text("utf-8")
    name = _text(doc["pipeline"])
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>Load certificate: {name}</title><style>{style}</style></head><body><main>",
        f"<h1>Load certificate</h1><p class='soft'>{name}, {_text(doc['at'])}</p>",
        f"<p class='verdict{'' if doc['equal'] else ' bad'}' role='status'>{_text(doc['verdict'])}</p>",
        _facts(doc, sha256),
        _summary(doc["tables"]),
        *(_table(its) for its in doc["tables"] if _has_more(its)),
        _how(doc),
        "</main></body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _text(value: object) -> str:
    """Any text, as text: names are the users', and some users are hostile."""
    return escape(printable(str(value)))


def _count(keys: int) -> str:
    return "1 key" if keys == 1 else f"{keys:,} keys"


def _pairs(pairs: Iterable[tuple[str, object]]) -> str:
    cells = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in pairs)
    return f"<dl>{cells}</dl>"


def _facts(doc: Doc, sha256: str) -> str:
    signed = doc.get("signature")
    pairs = [
        ("source position", doc["position"]),
        ("raw log entry", doc["entry"]),
        ("compared in", f"{doc['seconds']:,.1f} s"),
        ("repairs", doc["repairs"]),
        ("signature", f"{signed['by']} {signed['value']}" if signed else "none"),
        ("SHA-256 of the JSON file", sha256),
    ]
    return f"<section aria-label='facts'>{_pairs(pairs)}</section>"


def _summary(tables: Sequence[Doc]) -> str:
    rows = "".join(_row(its) for its in tables)
    head = "".join(f"<th{' class=n' if name in _NUMBERS else ''} scope='col'>{name}</th>" for name in _HEAD)
    return (
        f"<section><h2>Tables</h2><div class='scroll'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


_HEAD = ("table", "result", "source rows", "lake rows", "warehouse rows", "slices", "digest of the source")
_NUMBERS = {"source rows", "lake rows", "warehouse rows", "slices"}


def _row(its: Doc) -> str:
    sides = its["sides"]
    numbers = [sides.get(where, {}).get("rows") for where in ("source", "lake", "warehouse")]
    cells = [f"<td class=n>{'' if n is None else f'{n:,}'}</td>" for n in [*numbers, its["slices"]]]
    look, said = _result(its)
    digest = sides.get("source", {}).get("digest", "")
    return (
        f"<tr><td>{_text(its['table'])}</td><td class='{look}'>{_text(said)}</td>{''.join(cells)}"
        f"<td><code>{_text(digest)}</code></td></tr>"
    )


def _result(its: Doc) -> tuple[str, str]:
    if its["skipped"]:
        return "idle", "not compared"
    return ("good", "equal") if its["equal"] else ("bad", "differs")


def _has_more(its: Doc) -> bool:
    return bool(its["skipped"] or its["left_out"] or its["repair"] or its["differences"] or not its["equal"])


def _table(its: Doc) -> str:
    """What there is to say of one table beside its line."""
    pairs = [(name, f"{', '.join(its['left_out'][name])}") for name in its["left_out"]]
    pairs += [("not compared", its["skipped"])] if its["skipped"] else []
    for where, side in its["sides"].items():
        pairs.append((where, f"{side['rows']:,} rows, digest {side['digest']}"))
    found = its["repair"]
    for where, count in found.get("found", {}).items():
        pairs.append((f"found: {where}", f"{_count(count)} differed"))
    for where, count in found.get("keys", {}).items():
        pairs.append((f"repaired: {where}", _count(count)))
    pairs += [("left as it is", found["left"])] if found.get("left") else []
    return f"<section><h2>{_text(its['table'])}</h2>{_pairs(pairs)}{_keys(its['differences'])}</section>"


def _keys(differences: Doc) -> str:
    parts = []
    for where, its in differences.items():
        rows = "".join(
            f"<tr><td><code>{_text(key['key'])}</code></td><td>{_text(key['kind'])}</td>"
            f"<td>{_text(', '.join(key['columns']))}</td></tr>"
            for key in its["keys"][:SHOWN]
        )
        more = "" if its["count"] <= SHOWN else f", the first {SHOWN} of them here"
        parts.append(
            f"<details open><summary>{_text(where)}: {_count(its['count'])} differ{more}</summary>"
            "<div class='scroll'><table><thead><tr><th scope='col'>key</th><th scope='col'>is</th>"
            f"<th scope='col'>in</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
        )
    return "".join(parts)


def _how(doc: Doc) -> str:
    method = doc["method"]
    return (
        f"<section><h2>How</h2><p>{_text(method['says'])}</p>"
        f"{_pairs(method['facts'].items())}{_pairs(doc['versions'].items())}</section>"
    )
