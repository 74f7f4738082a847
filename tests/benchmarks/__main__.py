"""`python -m benchmarks`: run parts, print the table, write build/bench.json."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import cdc, fold, freshness, full, idle, memory, report
from benchmarks.bench import Bench

PARTS: dict[str, Callable[[Bench], None]] = {
    "cdc": cdc.run,
    "full": full.run,
    "fold": fold.run,
    "memory": memory.run,
    "freshness": freshness.run,
    "idle": idle.run,
}
ROOT = Path(__file__).parents[2]


def words() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--only", help=f"parts, with commas between: {','.join(PARTS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--full", action="store_true", help="memory at 10 M and 100 M rows: an hour, 60 GB")
    parser.add_argument("--no-peers", action="store_true", help="only ours and the limits")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="where bench.json goes")
    parser.add_argument("--page", action="store_true", help="put the figures into docs/performance.md too")
    return parser


def main(given: list[str]) -> int:
    """Run; 1 when a part failed."""
    args = words().parse_args(given)
    chosen = args.only.split(",") if args.only else list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        words().error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if args.page and args.only:
        words().error("--page shows one run of all parts: leave out --only")
    args.out.mkdir(parents=True, exist_ok=True)
    failed, began = False, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=args.out.absolute()) as folder:
        # Run records and caches stay with the run.
        os.environ |= {"XDG_STATE_HOME": f"{folder}/state", "XDG_CACHE_HOME": f"{folder}/cache"}
        peers = None if args.no_peers else (ROOT / "build" / "peers")
        bench = Bench(Path(folder), args.scale, args.repeats, args.full, peers)
        bench.report.facts = {**report.machine(), "scale": args.scale, "repeats": args.repeats}
        try:
            for name in chosen:
                bench.say(f"== {name}")
                try:
                    PARTS[name](bench)
                except Exception as error:  # noqa: BLE001  the other parts' figures are worth having
                    failed = True
                    bench.note(f"{name} FAILED: {type(error).__name__}: {error}")
                bench.report.facts["took"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
                bench.report.save(args.out)
        finally:
            bench.close()
    print(report.text(bench.report.rows))
    if args.page:
        report.write_page(bench.report, ROOT / "docs" / "performance.md")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
