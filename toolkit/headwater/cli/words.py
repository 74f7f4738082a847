"""The words of the command line, and the pipeline that a one-liner stands for. Imports nothing heavy."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias
from urllib.parse import unquote

from headwater.errors import ConfigError
from headwater.secrets import Secret

if TYPE_CHECKING:
    from headwater.config import Config

DEFAULT_FILE = "headwater.yml"

_ABOUT = "Log capture to Parquet you own, lake tables with full history, dbt models, and proof of equality."
_ONE_LINER = (
    "headwater run --source postgresql://user@host/shop --store ./lake \\\n"
    "      --warehouse duckdb:///wh.duckdb --tables 'public.*'"
)
_AFTER_HELP = f"""first steps:
  headwater demo                    see it work on a database of its own
  headwater init                    write headwater.yml to start from
  headwater check                   is the source ready?
  headwater run                     full the first time, changes after
  headwater verify                  prove that source, lake and warehouse are equal

without a file:
  {_ONE_LINER}

exit codes: 0 done, 1 failed, 2 wrong use (nothing ran)"""


class Parser(argparse.ArgumentParser):
    """argparse that raises ConfigError, so that wrong use is reported like everything else."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing and exiting; names the nearest right word."""
        found = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if found:
            choices = re.findall(r"[\w.-]+", found[2])
            near = difflib.get_close_matches(found[1], choices, n=1)
            hint = f"{self.prog} {near[0]}" if near else f"one of: {', '.join(choices)}"
            raise ConfigError(f"{found[1]!r} is not a command", hint=hint)
        raise ConfigError(message, hint=f"{self.prog} --help")


def make_parser() -> Parser:
    """All commands with their words, help and examples."""
    parser = _parser("headwater", _ABOUT, _AFTER_HELP)
    parser.add_argument("--version", action="store_true", help="print the version")
    _add_common(parser, top=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser, title="commands")
    _add_setup(commands)
    _add_running(commands)
    _add_looking(commands)
    _add_quality(commands)
    _add_quarantine(commands)
    _add_schema(commands)
    _add_dbt(commands)
    about = "print the versions of headwater and what it stands on"
    _add(commands, "version", about, "headwater version --json", words=False)
    return parser


def _parser(prog: str, about: str, after: str) -> Parser:
    return Parser(
        prog=prog,
        description=about,
        epilog=after,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def _add(commands: Commands, name: str, about: str, examples: str, *, words: bool = True) -> Parser:
    made = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  {line}" for line in examples.splitlines()),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_common(made)
    if words:
        _add_words(made)
    return made


def _add_common(parser: Parser, *, top: bool = False) -> None:
    # These words stand before and after the command; the later counts, so only the first has a default.
    off = False if top else argparse.SUPPRESS
    none = None if top else argparse.SUPPRESS
    parser.add_argument(
        "-c", "--config", metavar="PATH", default=none, help=f"the pipeline file (default: {DEFAULT_FILE})"
    )
    parser.add_argument("--json", action="store_true", default=off, help="one JSON document on stdout")
    parser.add_argument("--debug", action="store_true", default=off, help="show the traceback of an error")


def _add_words(parser: Parser) -> None:
    group = parser.add_argument_group("instead of a pipeline file")
    group.add_argument("--source", metavar="URL", help="postgresql://user@host:port/database")
    group.add_argument("--store", metavar="PLACE", help="a folder or s3://bucket/prefix (default: ./lake)")
    group.add_argument("--warehouse", metavar="URL", help="duckdb:///FILE (default: none)")
    group.add_argument(
        "--tables",
        metavar="PATTERN",
        action="append",
        help="tables to copy, such as 'public.*' or '!public.audit_*'; may be repeated (default: all)",
    )
    group.add_argument("--name", help="the pipeline's name (default: the database's)")


def _add_table(parser: Parser, help_text: str) -> None:
    parser.add_argument("--table", metavar="NAME", action="append", help=help_text + "; may be repeated")


def _add_setup(commands: Commands) -> None:
    demo = _add(
        commands,
        "demo",
        "show everything on an embedded PostgreSQL with a public data set",
        "headwater demo\nheadwater demo --keep ./demo",
        words=False,
    )
    demo.add_argument(
        "--keep",
        metavar="FOLDER",
        help="where lake, warehouse and dbt project are left (default: ./headwater-demo)",
    )
    notebooks = _add(
        commands,
        "notebooks",
        "copy the notebooks into a folder, to open there with JupyterLab or run with papermill",
        "headwater notebooks\nheadwater notebooks ./notebooks && jupyter lab ./notebooks",
        words=False,
    )
    notebooks.add_argument(
        "folder", nargs="?", metavar="FOLDER", default=".", help="where to (default: here)"
    )
    url = "postgresql://headwater@db.example.com/shop"
    init = _add(
        commands,
        "init",
        "write a pipeline file",
        f"headwater init\nheadwater init --source {url} --store s3://my-bucket/shop",
    )
    init.add_argument("--force", action="store_true", help="replace a file that is there")
    check = _add(
        commands,
        "check",
        "look whether the source is ready, and print the statements that mend it",
        "headwater check\nheadwater check --table public.orders --json",
    )
    _add_table(check, "only this table or pattern")
    tables = _add(
        commands,
        "tables",
        "list the source's tables and say which are copied",
        f"headwater tables\nheadwater tables 'public.*' --source {url}",
    )
    tables.add_argument("patterns", nargs="*", metavar="PATTERN", help="only tables that fit")
    _add(commands, "plan", "say what a run would do and how much it would read", "headwater plan")


def _add_running(commands: Commands) -> None:
    run = _add(
        commands,
        "run",
        "load what is new, catch up with the source, fold into the lake, build with dbt",
        f"headwater run\nheadwater run --follow\nheadwater run --full --table public.orders\n{_ONE_LINER}",
    )
    run.add_argument("--full", action="store_true", help="read the tables again; history is kept")
    _add_table(run, "with --full: only this table or pattern")
    run.add_argument("--no-dbt", action="store_true", help="stop at the lake: no staging, no dbt")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="end when caught up (the default)")
    how.add_argument("--follow", action="store_true", help="go on until SIGINT or SIGTERM")
    run.add_argument(
        "--pause",
        metavar="SECONDS",
        type=_seconds,
        default=0.5,
        help="from one look at the source to the next with --follow (default: 0.5)",
    )
    resync = _add(
        commands,
        "resync",
        "read tables whole again, skipped first loads too; history is kept",
        "headwater resync public.orders\nheadwater resync 'sales.*' --no-dbt",
    )
    resync.add_argument("table", nargs="+", metavar="TABLE", help="these tables or patterns")
    resync.add_argument("--no-dbt", action="store_true", help="stop at the lake: no staging, no dbt")
    compact = _add(
        commands,
        "compact",
        "move changes into the files of mirror and history now, for engines that read these themselves",
        "headwater compact\nheadwater compact public.orders",
    )
    compact.add_argument("patterns", nargs="*", metavar="TABLE", help="only these tables or patterns")


def _add_looking(commands: Commands) -> None:
    _add(
        commands,
        "status",
        "say where the pipeline stands, how far behind, and its last runs",
        "headwater status",
    )
    verify = _add(
        commands,
        "verify",
        "prove that source, lake and warehouse are equal, while others write",
        "headwater verify\nheadwater verify --table public.orders\nheadwater verify --certificate --repair",
    )
    _add_table(verify, "only this table or pattern")
    verify.add_argument(
        "--certificate", nargs="?", const="", metavar="FOLDER",
        help="compare histories too, and write a certificate into this folder or s3://bucket/prefix "
        "(default: certificates, beside the pipeline file)",
    )  # fmt: skip
    verify.add_argument(
        "--repair", action="store_true",
        help="put right what differs, key by key, compare again, and write a certificate",
    )  # fmt: skip
    verify.add_argument(
        "--check", metavar="FILE", help="only tell whether a certificate is as it was written"
    )
    explain = _add(
        commands,
        "explain",
        "show every change of one key: position, time, file, lake version and run",
        "headwater explain public.orders 42\nheadwater explain public.stock 'shop=7,item=1044'",
    )
    explain.add_argument("table", metavar="TABLE", help="the table, as `headwater tables` writes it")
    explain.add_argument("key", metavar="KEY", help="the key's value; several columns: a=1,b=2")
    explain.add_argument("--values", action="store_true", help="show the values of the rows too")


def _add_quality(commands: Commands) -> None:
    quality = _add(
        commands,
        "quality",
        "judge the data: what waits, else the last batch, or whole tables; writes a report page",
        "headwater quality\nheadwater quality public.orders --full\n"
        "headwater quality --accept public.orders\nheadwater quality --suites ./suites",
    )
    quality.add_argument("patterns", nargs="*", metavar="TABLE", help="only these tables or patterns")
    how = quality.add_mutually_exclusive_group()
    how.add_argument("--full", action="store_true", help="judge all rows of the tables")
    how.add_argument(
        "--accept", action="store_true", help="let what is held back of these tables through, once"
    )
    how.add_argument(
        "--suites",
        metavar="FOLDER",
        help="judge nothing, and write the rules as suites of Great Expectations",
    )
    quality.add_argument(
        "--data-docs",
        metavar="FOLDER",
        help="also write Data Docs of Great Expectations (they load styles from the network when read)",
    )


def _add_quarantine(commands: Commands) -> None:
    lines = (
        "headwater quarantine list\nheadwater quarantine show public.orders --key 42\n"
        "headwater quarantine retry\nheadwater quarantine drop public.orders --key 42"
    )
    about = "look at rows that wait because a value did not fit its cast, and settle them"
    quarantine = _add(commands, "quarantine", about, lines, words=False)
    actions = quarantine.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    listing = _add(actions, "list", "count what waits, table by table", "headwater quarantine list")
    show = _add(
        actions,
        "show",
        "show the rows of a table that wait, in order, as the source wrote them",
        "headwater quarantine show public.orders\nheadwater quarantine show public.orders --key 42 --json",
    )
    retry = _add(
        actions,
        "retry",
        "after a rule in `cast` was mended: fold the tables again from the raw log",
        "headwater quarantine retry\nheadwater quarantine retry public.orders",
    )
    drop = _add(
        actions,
        "drop",
        "give values up: their rows come in, with NULL in place of what does not fit and the text beside it",
        "headwater quarantine drop public.orders --key 42\nheadwater quarantine drop public.orders",
    )
    for parser in (listing, retry):
        parser.add_argument("patterns", nargs="*", metavar="TABLE", help="only these tables or patterns")
    for parser in (show, drop):
        parser.add_argument("table", metavar="TABLE", help="the table, as `headwater tables` writes it")
        key = "only this key, as `explain` takes it; may be repeated"
        parser.add_argument("--key", metavar="KEY", action="append", help=key)
    show.add_argument(
        "--limit", metavar="ROWS", type=_count, default=1000, help="at most so many rows (default: 1000)"
    )
    for parser in (retry, drop):
        parser.add_argument("--no-dbt", action="store_true", help="stop at the lake: no staging, no dbt")


def _add_schema(commands: Commands) -> None:
    about = "show how the columns of tables changed, and accept what a policy stopped"
    schema = _add(
        commands, "schema", about, "headwater schema log\nheadwater schema diff public.orders", words=False
    )
    actions = schema.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    log = _add(
        actions,
        "log",
        "list every version of the tables' columns: raw log entry, position, time and what changed",
        "headwater schema log public.orders",
    )
    log.add_argument("table", metavar="TABLE", nargs="?", help="only this table")
    diff = _add(
        actions,
        "diff",
        "show two versions of a table's columns as a diff",
        "headwater schema diff public.orders\nheadwater schema diff public.orders --from 1 --to 3",
    )
    diff.add_argument("table", metavar="TABLE", help="the table")
    diff.add_argument(
        "--from", dest="since", type=int, metavar="N", help="the older version (default: the one before)"
    )
    diff.add_argument("--to", type=int, metavar="M", help="the newer version (default: the last)")
    accept = _add(
        actions,
        "accept",
        "let in what stopped a table: a changed schema, a truncate or the loss of it, where a policy says so;"
        " casts that are right as they are, though columns have other names now",
        "headwater schema accept public.orders",
    )
    accept.add_argument("patterns", metavar="TABLE", nargs="+", help="the tables")


def _add_dbt(commands: Commands) -> None:
    examples = "headwater dbt diff\nheadwater dbt generate\nheadwater dbt build"
    dbt = _add(commands, "dbt", "show, write or build the dbt models", examples, words=False)
    actions = dbt.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser, required=True)
    generate = _add(
        actions,
        "generate",
        "write sources, models, tests and docs into the dbt project",
        "headwater dbt generate",
    )
    generate.add_argument("--force", action="store_true", help="replace generated files that were edited")
    _add(
        actions,
        "diff",
        "show what the columns of now would change in the generated files, and write nothing",
        "headwater dbt diff",
    )
    build = _add(
        actions,
        "build",
        "stage what the lake holds and build the models",
        "headwater dbt build\nheadwater dbt build --full-refresh",
    )
    build.add_argument("--full-refresh", action="store_true", help="build every table anew")


def parse_words(words: Sequence[str]) -> argparse.Namespace:
    """The words, understood; raises ConfigError that names the nearest right one."""
    parser = make_parser()
    args, left = parser.parse_known_args(words)
    if left:
        at: argparse.ArgumentParser = parser
        for name in (args.command, getattr(args, "action", None)):
            at = _below(at, name)
        known = [o for a in at._actions for o in a.option_strings]
        near = difflib.get_close_matches(left[0].partition("=")[0], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"{at.prog} --help"
        raise ConfigError(f"{at.prog} does not know {left[0]!r}", hint=hint)
    return args


def _below(parser: argparse.ArgumentParser, name: str | None) -> argparse.ArgumentParser:
    found = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return found[0][name] if found and name else parser


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError("expected a number of rows")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:  # also refuses NaN
        raise argparse.ArgumentTypeError("expected seconds from 0 to 3600")
    return value


def one_liner(args: argparse.Namespace) -> Config | None:
    """The pipeline that the words stand for; None when a file holds it. A password becomes a Secret."""
    words = ("source", "store", "warehouse", "tables", "name")
    given = [w for w in words if getattr(args, w, None)]
    if "source" not in given:
        if given:
            hint = f"give --source too, or take out --{given[0]} and write it into {DEFAULT_FILE}"
            raise ConfigError(f"--{given[0]} needs --source", hint=hint)
        return None
    if args.config and args.command != "init":
        raise ConfigError("--config and --source both name a pipeline", hint="keep one of them")
    return _config(args, Path.cwd())


def _config(args: argparse.Namespace, folder: Path) -> Config:
    import yaml

    from headwater.config import parse
    from headwater.config.files import PASSWORD_VARIABLE

    source, password, database = split_source(args.source)
    reference = {"password": f"env:{PASSWORD_VARIABLE}"} if os.environ.get(PASSWORD_VARIABLE) else {}
    doc: dict[str, object] = {
        "pipeline": args.name or pipeline_name(database),
        "source": {"kind": "postgres", "url": source, **reference},
        "store": args.store or "./lake",
        "tables": args.tables or ["*.*"],
    }
    if args.warehouse:
        doc["warehouse"] = args.warehouse
    config = parse(yaml.safe_dump(doc), name="", folder=folder)
    if password is None:
        return config
    return replace(config, source={**config.source, "password": password})


def split_source(url: str) -> tuple[str, Secret | None, str]:
    """A source URL without its password, the password, the database's name. Errors never repeat the URL."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in ("postgresql", "postgres"):
        known = scheme if found and scheme.isalnum() else "this"
        raise ConfigError(
            f"--source: {known} is not a source we know", hint="postgresql://user@host:5432/database"
        )
    cut = re.search(r"[/?#]", rest)
    authority, tail = (rest[: cut.start()], rest[cut.start() :]) if cut else (rest, "")
    if "@" in tail.partition("?")[0] or re.search(r"[?&](ssl)?password=", tail, re.IGNORECASE):
        hint = "postgresql://user:password@host/database, with / ? # @ in the password as %2F %3F %23 %40"
        raise ConfigError("--source: the URL cannot be read", hint=hint)
    login, at, host = authority.rpartition("@")
    user, colon, password = login.partition(":")
    database = _decoded(tail.partition("?")[0].strip("/")) or _decoded(user)
    secret = Secret(_decoded(password)) if colon and password else None
    return f"{scheme}://{user}{at}{host}{tail}", secret, database


def pipeline_name(database: str) -> str:
    """A pipeline's name from a database's."""
    name = re.sub(r"[^a-z0-9_]+", "_", database.lower()).strip("_")[:40]
    return name if re.match(r"[a-z]", name) else f"p_{name}"[:40].rstrip("_")


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})|%00", text):
        raise ConfigError(
            "--source: a % in the URL is not followed by two digits", hint="write % itself as %25"
        )
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConfigError(
            "--source: the URL's escapes are not UTF-8", hint="write them as UTF-8 bytes"
        ) from None
