"""Verify: source = lake = warehouse at one position, by digests computed in each engine; docs/verify.md."""

from headwater.verify.compare import Options, Relation, digest, digests, name_keys, readable, verify
from headwater.verify.found import (
    LIMIT,
    Apart,
    KeyDifference,
    TableCheck,
    VerifyReport,
    check_json,
    describe,
    name_key,
    verdict,
)
from headwater.verify.versions import VersionCheck, Versions, compare_versions

__all__ = [
    "LIMIT",
    "Apart",
    "KeyDifference",
    "Options",
    "Relation",
    "TableCheck",
    "VerifyReport",
    "VersionCheck",
    "Versions",
    "check_json",
    "compare_versions",
    "describe",
    "digest",
    "digests",
    "name_key",
    "name_keys",
    "readable",
    "verdict",
    "verify",
]
