"""The report: one HTML page that needs nothing beside itself. Every text of others is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from headwater.config import quote_table
from headwater.model import TableId
from headwater.printable import printable
from headwater.quality import Check, QualityResult, TableResult, Verdict

_WORDS: dict[str, str] = {"ok": "all right", "warn": "warnings", "failed": "failed"}
_RANK: dict[Verdict, int] = {"failed": 0, "warn": 1, "ok": 2}
_ORIGINS = {
    "schema": "schema",
    "source": "foreign key",
    "observed": "seen before",
    "limit": "limit",
    "user": "headwater.yml",
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
#: Tables that are all right beyond so many are folded into one line each without their rules.
_LISTED = 500


def render(past: Sequence[QualityResult]) -> str:
    """The page of results, oldest first: how each table was judged last, and how the runs went."""
    newest = newest_tables(past)
    verdict: Verdict = min((t.verdict for t in newest), key=_RANK.__getitem__, default="ok")
    last = past[-1] if past else None
    name = _text(last.pipeline) if last else ""
    at = f"{last.at:%Y-%m-%d %H:%M:%S} UTC" if last else "never"
    body = [
        f"<header><h1>Data quality of {name}</h1>{_badge(verdict, _WORDS[verdict])}"
        f'<p class="soft">Judged last: {at}. The newest judgement of each table, what failed first.</p>',
        "</header>",
        _figures(newest),
        _trend(past),
        *(_table(t, past) for t in newest[:_LISTED]),
        *(
            [f'<p class="soft">and {len(newest) - _LISTED:,} more tables</p>']
            if len(newest) > _LISTED
            else []
        ),
    ]
    css = files(__package__).joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>Data quality of {name}</title><style>{css}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def newest_tables(past: Sequence[QualityResult]) -> list[TableResult]:
    """How each table was judged last, the worst first."""
    found: dict[TableId, TableResult] = {t.table: t for result in past for t in result.tables if t.checks}
    return sorted(found.values(), key=lambda t: (_RANK[t.verdict], not t.held, t.table))


def _figures(tables: Sequence[TableResult]) -> str:
    held = sum(t.held for t in tables)
    figures = [
        (len(tables), "tables"),
        (sum(len(t.checks) for t in tables), "rules"),
        (sum(t.failed for t in tables), "failed"),
        (sum(t.warned for t in tables), "warnings"),
        *([(held, "held back")] if held else []),
    ]
    return f'<ul class="figures">{"".join(f"<li><b>{n:,}</b>{says}</li>" for n, says in figures)}</ul>'


def _trend(past: Sequence[QualityResult]) -> str:
    if len(past) < 2:
        return ""
    counts = [(r.failed, r.warned) for r in past]
    wrong = sum(1 for failed, _ in counts if failed)
    says = f"The last {len(past)} judgements: {wrong} with failures"
    bars = sparkline(counts, says, width=640, height=56)
    return f'<section class="trend" aria-label="Trend"><p>{says}.</p>{bars}</section>'


def sparkline(counts: Sequence[tuple[int, int]], says: str, *, width: int = 120, height: int = 20) -> str:
    """Bars of (failed, warned), oldest first; one that is all right is a low one."""
    step = min(width / max(len(counts), 1), 16)
    most = max([f + w for f, w in counts] or [1]) or 1
    bars = []
    for n, (failed, warned) in enumerate(counts):
        kind = "failed" if failed else "warn" if warned else "ok"
        tall = max(2.0, (failed + warned) / most * (height - 3))
        bars.append(
            f'<rect class="bar-{kind}" x="{n * step:.1f}" y="{height - 1 - tall:.1f}" '
            f'width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}"/>'
        )
    floor = f'<line class="floor" x1="0" x2="{width}" y1="{height - 0.5}" y2="{height - 0.5}"/>'
    return (
        f'<svg role="img" aria-label="{escape(says)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" style="max-width:100%">{floor}{"".join(bars)}</svg>'
    )


def _table(t: TableResult, past: Sequence[QualityResult]) -> str:
    history = [(o.failed, o.warned) for r in past for o in r.tables if o.table == t.table and o.checks]
    name = _text(str(t.table))
    said = f"{printable(str(t.table))}: the last {len(history)} judgements"
    held = _badge("failed", "held back") if t.held else ""
    what = "all rows" if t.scope == "table" else "what came"
    opened = " open" if t.verdict != "ok" else ""
    numbers = f"{len(t.checks):,} rules over {t.rows:,} rows ({what}), {t.seconds:.1f} s"
    spark = sparkline(history[-30:], said) if len(history) > 1 else ""
    checks = sorted(t.checks, key=lambda c: (not c.fails, not c.wrong, c.rule, c.columns))
    rows = "".join(_check(c, t) for c in checks)
    return (
        f"<details{opened}><summary><h2>{name}</h2>{_badge(t.verdict, _WORDS[t.verdict])}{held}"
        f'{spark}<span class="soft">{numbers}</span></summary>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Rules of {name}"><table>'
        f"<caption>{_advice(t)}</caption><thead><tr><th>result</th><th>rule</th><th>columns</th><th>from</th>"
        '<th class="number">wrong</th><th class="number">of</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _advice(t: TableResult) -> str:
    if not t.held:
        return "Rules that failed come first."
    name = escape(printable(quote_table(t.table)))
    return (
        "The warehouse and published views keep this table as it was. The next run judges it again; "
        f"<code>headwater quality --accept {name}</code> lets it through once."
    )


def _check(c: Check, t: TableResult) -> str:
    word = {"passed": "passed", "unjudged": "could not be judged", "skipped": "skipped"}
    word["failed"] = "failed" if c.fails else "warning"
    kind = "failed" if c.fails else "warn" if c.wrong else "skipped" if c.outcome == "skipped" else "ok"
    more = f'<p class="soft">{_text(c.why)}</p>' if c.why else ""
    if c.keys:
        keys = ", ".join(f"<code>{_text(key)}</code>" for key in c.keys)
        more += f'<p class="soft">rows: {keys}</p>'
    wrong, of = (f"{c.unexpected:,}", f"{c.rows:,}") if c.outcome in ("passed", "failed") else ("", "")
    return (
        f"<tr><td>{_badge(kind, word[c.outcome])}</td><td>{_text(c.says)}"
        f'<br><code class="soft">{_text(c.rule)}</code>{more}</td><td>{_text(", ".join(c.columns))}</td>'
        f'<td>{_ORIGINS[c.origin]}</td><td class="number">{wrong}</td><td class="number">{of}</td></tr>'
    )


def _badge(kind: str, says: str) -> str:
    return f'<span class="badge {kind}">{escape(says)}</span>'


def _text(text: str) -> str:
    return escape(printable(text))
