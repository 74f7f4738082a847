"""Secrets: found by reference, shown nowhere."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from headwater.errors import SecretError
from headwater.secrets import Secret, is_reference, resolve, scrub

CANARY = "hunter2-canary"


def test_a_secret_shows_nowhere() -> None:
    secret = Secret(CANARY)
    shown = f"{secret} {secret!r} {secret:>20} {[secret]} {vars()!r} %s" % secret
    assert CANARY not in shown
    assert "***" in shown
    for write in (pickle.dumps, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            write(secret)  # type: ignore[operator]
    with pytest.raises(TypeError):
        hash(secret)
    assert secret == Secret(CANARY)
    assert secret != Secret("x")
    assert secret != CANARY
    assert secret.reveal() == CANARY


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PASSWORD", CANARY)
    monkeypatch.setenv("AN_EMPTY_ONE", "")
    assert resolve("env:A_PASSWORD").reveal() == CANARY
    for name, said in (("AN_EMPTY_ONE", "is empty"), ("NO_SUCH_ONE", "is not set")):
        with pytest.raises(SecretError, match=said) as failed:
            resolve(f"env:{name}")
        assert failed.value.hint == f"export {name}=..."


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"pw\n", "pw"), (b"pw\r\n", "pw"), (b"pw", "pw"), (b" p w \n\n", " p w \n"), ("pä\n".encode(), "pä")],
)
def test_files(tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / "pw").write_bytes(content)
    assert resolve(f"file:{tmp_path}/pw").reveal() == value


def test_files_that_hold_no_secret(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "binary").write_bytes(CANARY.encode() + b"\xff")
    (tmp_path / "huge").write_bytes(CANARY.encode() * 10_000)
    for name in ("empty", "binary", "huge", "none", ".", "a\0b", "~no-such-user"):
        with pytest.raises(SecretError) as failed:
            resolve(f"file:{tmp_path}/{name}")
        assert failed.value.hint
        assert CANARY not in str(failed.value)
        assert failed.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [CANARY, "", "env:", "file:", "env:A B", "env:1A", f"env:{CANARY}!", "ENV:A", "aws-secret:x", " env:A"],
)
def test_what_is_no_reference_is_not_repeated(text: str) -> None:
    assert not is_reference(text)
    with pytest.raises(SecretError) as failed:
        resolve(text)
    assert CANARY not in str(failed.value) + failed.value.hint


def test_a_secret_is_its_own_reference() -> None:
    secret = Secret("x")
    assert resolve(secret) is secret


def test_scrub() -> None:
    assert scrub("a pw and a pw2", Secret("pw"), Secret("pw2"), Secret("")) == "a *** and a ***"
