"""The command line: parse, call one function, print. Exit codes: 0 done, 1 failed, 2 wrong use."""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from urllib.parse import unquote

from headwater.cli.words import make_parser, parse_words
from headwater.errors import ConfigError, HeadwaterError, StorageError
from headwater.printable import printable
from headwater.secrets import Secret, scrub

FAILED, WRONG_USE = 1, 2


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the result is the process's exit code."""
    words = sys.argv[1:] if words is None else words
    for stream in (sys.stdout, sys.stderr):
        # A terminal without UTF-8 gets escapes instead of a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _main(words)
    except BrokenPipeError:
        # The reader of our output went away; Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _main(words: Sequence[str]) -> int:
    secrets = _secrets(words)
    as_json, debug = "--json" in words, "--debug" in words
    try:
        args = parse_words(words)
        if not args.command and not args.version:
            make_parser().print_help()
            return WRONG_USE
        _warn(secrets)
        return _answer(args)
    except BrokenPipeError:
        raise
    except SystemExit as ended:  # argparse after --help
        return int(ended.code or 0)
    except KeyboardInterrupt:
        stopped = HeadwaterError(
            "stopped; nothing is lost", hint="headwater run   (goes on from the last entry)"
        )
        return _report(stopped, secrets, as_json=as_json, debug=False)
    except Exception as failed:  # noqa: BLE001  the last line of defence: a person must get a sentence
        return _report(failed, secrets, as_json=as_json, debug=debug)


def _answer(args: Namespace) -> int:
    from headwater.cli.verbs import VERBS

    answer = VERBS[args.command or "version"](args)
    text = "".join(f"{line}\n" for line in answer.lines)
    if args.json:
        text = "" if answer.document is None else json.dumps(answer.document) + "\n"
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as failed:
        message = f"the command is done, but its output cannot be written: {failed.strerror}"
        raise StorageError(message, hint="headwater status") from None
    return answer.code


def _secrets(words: Sequence[str]) -> tuple[Secret, ...]:
    """The passwords of the URLs among the words, as written and decoded: no output may hold them."""
    kinds = r"://[^:@]*:([^@].*)@", r"password=([^&\s]+)"
    written = [found[1] for word in words for kind in kinds for found in re.finditer(kind, word)]
    return tuple(Secret(text) for text in {*written, *map(unquote, written)})


def _warn(secrets: Sequence[Secret]) -> None:
    if secrets:
        print("headwater: others on this machine can see the password on the command line", file=sys.stderr)
        print("  try: headwater init with the same words   (writes a file without it)", file=sys.stderr)


def _report(failed: BaseException, secrets: Sequence[Secret], *, as_json: bool, debug: bool) -> int:
    known = isinstance(failed, HeadwaterError)
    message = str(failed) if known else f"this is a bug in headwater: {type(failed).__name__}: {failed}"
    hint = failed.hint if isinstance(failed, HeadwaterError) else "the same command with --debug shows where"
    message, hint = scrub(message, *secrets), scrub(hint, *secrets)
    if debug:
        import traceback

        # Without locals: they hold what was being worked on.
        trace = "".join(traceback.format_exception(failed))
        print(scrub(trace, *secrets), file=sys.stderr, end="")
    if as_json:
        print(
            json.dumps({"error": {"kind": type(failed).__name__, "message": message, "hint": hint}}),
            flush=True,
        )
    else:
        _print_error(message, hint)
    return WRONG_USE if isinstance(failed, ConfigError) else FAILED


def _print_error(message: str, hint: str) -> None:
    first, *more = message.splitlines() or [""]
    print(f"headwater: {printable(first)}", file=sys.stderr)
    for line in more:
        print(f"  {printable(line)}", file=sys.stderr)
    for number, line in enumerate(hint.splitlines()):
        print(f"  {'     ' if number else 'try: '}{printable(line)}", file=sys.stderr)
