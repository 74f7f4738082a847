"""Store options of buckets: read strictly, and passed on in the words of obstore and deltalake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from headwater.errors import ConfigError
from headwater.storage import check_name

if TYPE_CHECKING:
    from obstore.store import S3Config

_TRUTH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_ENDPOINT = re.compile(r"https?://[^/@?#\s]+(/[^@?#\s]*)?")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True, repr=False)
class BucketOptions:
    """What it takes to reach a bucket. Without a key, the usual AWS chain is asked."""

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str
    session_token: str
    path_style: bool
    sse: str
    sse_kms_key_id: str
    allow_http: bool
    timeout: float

    def __repr__(self) -> str:
        return f"BucketOptions(endpoint={self.endpoint!r}, region={self.region!r}, ...)"

    def obstore(self) -> S3Config:
        """As obstore's S3Config; what is not set stays with the environment."""
        config: S3Config = {"conditional_put": "etag"}
        if self.endpoint:
            config["endpoint"] = self.endpoint
            config["virtual_hosted_style_request"] = not self.path_style
        if self.region:
            config["region"] = self.region
        if self.access_key_id:
            config["access_key_id"] = self.access_key_id
            config["secret_access_key"] = self.secret_access_key
        if self.session_token:
            config["session_token"] = self.session_token
        if self.sse:
            config["server_side_encryption"] = self.sse
        if self.sse_kms_key_id:
            config["sse_kms_key_id"] = self.sse_kms_key_id
        return config

    def delta(self) -> dict[str, str]:
        """As deltalake's storage_options."""
        named = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
            "AWS_SERVER_SIDE_ENCRYPTION": self.sse,
            "AWS_SSE_KMS_KEY_ID": self.sse_kms_key_id,
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(not self.path_style).lower() if self.endpoint else "",
            "AWS_ALLOW_HTTP": "true" if self.allow_http else "",
            "AWS_CONDITIONAL_PUT": "etag",
            "timeout": f"{self.timeout * 20:.0f}s",
            "connect_timeout": f"{min(5.0, self.timeout):.0f}s",
        }
        return {name: value for name, value in named.items() if value}

    def scrub(self, text: str) -> str:
        """The text without our secrets."""
        for secret in (self.secret_access_key, self.session_token):
            if len(secret) >= 8:  # a shorter one is a test's, and would tear holes into words
                text = text.replace(secret, "***")
        return text


def read_options(given: Mapping[str, str]) -> BucketOptions:
    """Check the options by name and form; ConfigError names the nearest right one, never a value."""
    names = [f.name for f in fields(BucketOptions)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise ConfigError(f"no store option {name!r}", hint=f"store_options: {(near or names)[0]}")
    endpoint = given.get("endpoint", "").rstrip("/")
    options = BucketOptions(
        endpoint=endpoint,
        # A server of one's own has no regions; signatures need the word all the same.
        region=given.get("region", "") or ("us-east-1" if endpoint else ""),
        access_key_id=given.get("access_key_id", ""),
        secret_access_key=given.get("secret_access_key", ""),
        session_token=given.get("session_token", ""),
        path_style=_truth(given, "path_style", bool(endpoint)),
        sse=given.get("sse", ""),
        sse_kms_key_id=given.get("sse_kms_key_id", ""),
        allow_http=_truth(given, "allow_http", False),
        timeout=_seconds(given.get("timeout", "60")),
    )
    _check_together(options)
    return options


def _check_together(options: BucketOptions) -> None:
    if bool(options.access_key_id) != bool(options.secret_access_key):
        raise ConfigError("access_key_id and secret_access_key go together", hint="give both, or none")
    if options.endpoint and not _ENDPOINT.fullmatch(options.endpoint):
        raise ConfigError(
            "the endpoint is not a URL", hint="store_options: endpoint: https://minio.example.com"
        )
    if options.endpoint.startswith("http://") and not options.allow_http:
        raise ConfigError("the endpoint is not encrypted", hint="store_options: allow_http: true")
    if options.sse not in ("", "AES256", "aws:kms"):
        raise ConfigError("sse is neither AES256 nor aws:kms", hint="store_options: sse: AES256")
    if options.sse_kms_key_id and options.sse != "aws:kms":
        raise ConfigError("sse_kms_key_id needs sse: aws:kms", hint="store_options: sse: aws:kms")


def split_bucket(place: str) -> tuple[str, str]:
    """Bucket, and prefix that is empty or ends in `/`, of what follows `s3://`."""
    bucket, _, prefix = place.partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket):
        # Not repeated in the text: somebody may have put a key and its secret before an @.
        raise ConfigError("the store's URL names no valid bucket", hint="store: s3://bucket/prefix")
    if not prefix:
        return bucket, ""
    return bucket, f"{check_name(prefix)}/"


def _truth(given: Mapping[str, str], name: str, otherwise: bool) -> bool:
    text = str(given.get(name, "")).strip().lower()
    if text and text not in _TRUTH:
        raise ConfigError(f"{name} is neither true nor false", hint=f"store_options: {name}: true")
    return _TRUTH.get(text, otherwise)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0.1 <= seconds <= 3600:
        raise ConfigError("timeout is not a number of seconds", hint="store_options: timeout: 60")
    return seconds
