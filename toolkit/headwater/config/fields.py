"""Every field of `headwater.yml`, as data: the reader, the JSON Schema and the documentation follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "path", "number", "flag", "secret", "moment", "mapping", "list"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: what it means, what it may hold, and an example a user can copy.

    kind      "path": relative to the file; "secret": a reference only; "moment": a date, a time or null
    pattern   a regular expression for the whole text; `wants` says the same in words
    fields    of a mapping
    each      of a mapping whose names the user chooses: what each of them holds
    item      of a list
    short     the text that may stand for the whole mapping
    """

    name: str
    says: str
    example: str
    kind: Kind = "text"
    required: bool = False
    default: str = ""
    choices: tuple[str, ...] = ()
    pattern: str = ""
    wants: str = ""
    highest: int = 0
    fields: tuple[Field, ...] = ()
    item: Field | None = None
    short: Field | None = None
    each: Field | None = None


_COLUMN = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
_COLUMN_WANTS = "a column name: letters, digits and underscores"
_NAME = r"[a-z][a-z0-9_]{0,39}"
_SCHEMA = r"[a-z_][a-z0-9_]{0,62}"
_SCHEMA_WANTS = "a schema name: small letters, digits and underscores"

_MODE = Field(
    "mode",
    "`history` keeps every version of a row (SCD2) beside the current rows; `mirror` only the current rows",
    "history",
    choices=("history", "mirror"),
    default="history",
)

_HISTORY = Field(
    "history",
    "the names of the history columns and the value of an open end",
    "{valid_from: start_date, valid_to: end_date}",
    kind="mapping",
    fields=(
        Field("valid_from", "the column with the commit time a version begins at", "start_date",
              default="valid_from", pattern=_COLUMN, wants=_COLUMN_WANTS),
        Field("valid_to", "the column with the commit time a version ends at", "end_date",
              default="valid_to", pattern=_COLUMN, wants=_COLUMN_WANTS),
        Field("current", "the column that is true for the open version of a key", "is_current",
              default="is_current", pattern=_COLUMN, wants=_COLUMN_WANTS),
        Field("open_end", "what `valid_to` holds while a version is open", "9999-12-31",
              kind="moment", default="null"),
    ),
)  # fmt: skip

_POSTGRES = (
    Field("kind", "the kind of source", "postgres", required=True, choices=("postgres",)),
    Field("url", "the server, the user and the database in one line, without a password; instead of "
          "`host`, `port`, `user` and `dbname`", "postgresql://headwater@db.example.com:5432/shop",
          pattern=r"(postgresql|postgres)://\S+", wants="a URL that begins with postgresql://"),
    Field("host", "the server's name or address, or the folder of its socket", "db.example.com"),
    Field("port", "the server's port", "5432", kind="number", default="5432", highest=65535),
    Field("user", "the role to log in as", "headwater"),
    Field("dbname", "the database to capture", "shop"),
    Field("password", "where the password is; without it libpq's own ways hold (PGPASSWORD, ~/.pgpass)",
          "env:HEADWATER_SOURCE_PASSWORD", kind="secret"),
    Field("sslmode", "how the server's certificate is checked; less than `verify-full` is a risk you choose",
          "verify-full", default="verify-full",
          choices=("disable", "allow", "prefer", "require", "verify-ca", "verify-full")),
    Field("sslrootcert", "the certificate authority that signed the server's certificate, or `system`",
          "certs/root.crt", kind="path"),
    Field("publication", "the publication to read; made if the role may, else the statement to run is shown",
          "headwater_shop", default="headwater_<pipeline>", pattern=r"[^\x00]{1,63}",
          wants="a publication name of 1 to 63 characters"),
    Field("slot", "the replication slot to read", "headwater_shop", 
          default="headwater_<pipeline>_<hash of the store>",
          pattern=r"[a-z0-9_]{1,63}", wants="a slot name: small letters, digits and underscores"),
    Field("connections", "how many connections a full load reads with, beside the two of every run", "4",
          kind="number", default="2", highest=16),
    Field("cut_minutes", "how long a full load reads from one snapshot, which keeps VACUUM from removing old "
          "rows and the server from removing log; then it takes a new one for what is missing", "30",
          kind="number", default="30", highest=1440),
    Field("max_bytes_per_second", "what a full load takes from the server at most, over all connections; "
          "without it there is no bound", "50000000", kind="number", highest=1_000_000_000_000),
    Field("wal_budget", "how much log the server may keep for this pipeline before `status` and events warn, "
          "where `max_slot_wal_keep_size` is not set: how full its disk is does not show over SQL", "20GB",
          pattern=r"[1-9][0-9]*(\.[0-9]+)? ?([KMGT]i?B)", wants="a size with its unit"),
)  # fmt: skip

_STORE = Field(
    "store",
    "where the raw log and the lake live: a folder, or s3://bucket/prefix",
    "./lake",
    kind="mapping",
    required=True,
    fields=(
        Field("url", "a folder, or s3://bucket/prefix", "s3://my-bucket/shop", kind="path", required=True),
        Field("endpoint", "the address of an S3-compatible server, with https:// or http://; default: AWS", "https://minio.example.com"),
        Field("region", "the bucket's region", "eu-central-1"),
        Field("access_key_id", "where the access key is; without it the usual AWS chain holds (environment, "
              "instance role)", "env:AWS_ACCESS_KEY_ID", kind="secret"),
        Field("secret_access_key", "where the secret key is", "env:AWS_SECRET_ACCESS_KEY", kind="secret"),
        Field("session_token", "where the token of temporary credentials is", "env:AWS_SESSION_TOKEN",
              kind="secret"),
        Field("sse", "server-side encryption to ask for with every write", "AES256",
              choices=("AES256", "aws:kms")),
        Field("sse_kms_key_id", "the KMS key, with `sse: aws:kms`", "alias/headwater"),
        Field("path_style", "put the bucket into the path instead of the host name", "true", kind="flag",
              default="true with an endpoint, else false"),
        Field("timeout", "how many seconds one request may take", "60", kind="number", highest=3600),
    ),
    short=Field("url", "a folder, or s3://bucket/prefix", "./lake", kind="path"),
)  # fmt: skip

_POLICIES = (
    Field("schema", "what changed columns do to the lake: `evolve` lets them in, `freeze` stops the table "
          "until `headwater schema accept`, `discard` leaves new columns out; schema-changes.md", "freeze",
          choices=("evolve", "freeze", "discard"), default="evolve"),
    Field("on_drop", "when a table is dropped at the source: `keep` the lake's as it is, or `fail`", "fail",
          choices=("keep", "fail"), default="keep"),
    Field("on_rename", "when a table is renamed: `keep` the lake's under the old name as it is, or `fail`; "
          "under the new name it is another table", "fail", choices=("keep", "fail"), default="keep"),
    Field("on_truncate", "when a table is truncated: `apply` it, `ignore` it and keep the rows, or `fail`",
          "ignore", choices=("apply", "ignore", "fail"), default="apply"),
)  # fmt: skip

_MASKS = Field(
    "masks",
    "what is stored instead of a column's values: `hash`, `tokenize`, `redact` (all, or all but the last n), "
    "`truncate` (to the first n), `null`, or `drop` for no column at all; masks.md",
    "{email: hash, phone: {redact: 4}}",
    kind="mapping",
    each=Field(
        "masks",
        "one column's mask",
        "{redact: 4}",
        kind="mapping",
        fields=(
            Field("redact", "how many characters at the end stay", "4", kind="number", highest=1000),
            Field("truncate", "how many characters at the start stay", "3", kind="number", highest=1000),
        ),
        short=Field("masks", "one column's mask", "hash",
                    choices=("drop", "null", "hash", "redact", "tokenize"),
                    wants="{redact: n}, {truncate: n}"),
    ),
)  # fmt: skip

_COLUMNS = Field(
    "columns",
    "the columns to copy: names or globs, `!` leaves columns out; without it all",
    '["*", "!internal_*"]',
    kind="list",
    item=Field("columns", "a column or a glob", '"!internal_*"'),
)

_TABLE = Field(
    "tables",
    "a table or a pattern, with settings of its own",
    "{name: public.orders, mode: mirror}",
    kind="mapping",
    fields=(
        Field("name", "the table, or a pattern; the last entry that fits a table counts", "public.orders",
              required=True),
        _MODE,
        _HISTORY,
        _COLUMNS,
        _MASKS,
        *_POLICIES,
    ),
    short=Field("name", "a pattern", "public.*"),
)  # fmt: skip

_WAREHOUSE = Field(
    "warehouse",
    "where dbt builds; without it the run ends at the lake",
    "duckdb:///warehouse.duckdb",
    kind="mapping",
    fields=(
        Field("kind", "the kind of warehouse", "duckdb", default="duckdb", choices=("duckdb",)),
        Field("path", "the DuckDB file", "warehouse.duckdb", kind="path", default="warehouse.duckdb"),
        Field("schema", "the schema of the models", "main", default="main", pattern=_SCHEMA,
              wants=_SCHEMA_WANTS),
        Field("staging_schema", "the schema of the staged changes", "headwater_staging",
              default="headwater_staging", pattern=_SCHEMA, wants=_SCHEMA_WANTS),
    ),
    short=Field("path", "duckdb:///FILE (four slashes for an absolute path)", "duckdb:///warehouse.duckdb"),
)  # fmt: skip

_DBT = Field(
    "dbt",
    "the dbt project the models are generated into",
    "{project: ./dbt}",
    kind="mapping",
    fields=(
        Field("project", "the folder with `dbt_project.yml`; made if there is none", "./dbt", kind="path",
              default="dbt"),
        Field("folder", "the folder inside the project that is ours; all else is never touched",
              "models/headwater", default="models/headwater", pattern=r"(?!/)(?!.*(^|/)\.\.(/|$))[^\\\x00]+",
              wants="a folder inside the project"),
    ),
    short=Field("project", "the project's folder", "./dbt", kind="path"),
)  # fmt: skip

_LAKE = Field(
    "lake",
    "how the lake's tables are kept",
    "{compact: always}",
    kind="mapping",
    fields=(
        Field("compact", "when changes move into the files of mirror and history: `auto` at once for small "
              "tables and ever more seldom for large ones; `always` with each run, for engines that read "
              "these files themselves", "always", default="auto", choices=("auto", "always")),
    ),
)  # fmt: skip

#: The whole file.
FILE = Field(
    "",
    "one pipeline: a source, the tables to copy, and where they land",
    "",
    kind="mapping",
    fields=(
        Field("pipeline", "the pipeline's name; it names the slot and the publication too", "shop",
              required=True, pattern=_NAME,
              wants="a name of small letters, digits and underscores that begins with a letter (at most 40)"),
        Field("source", "the database to capture", "{kind: postgres, host: db.example.com, user: headwater, "
              "dbname: shop, password: env:HEADWATER_SOURCE_PASSWORD}", kind="mapping", required=True,
              fields=_POSTGRES),
        _STORE,
        Field("tables", "the tables to copy: patterns over `schema.table`, `!` leaves tables out, mappings "
              "where a table has settings of its own", '["public.*", "!public.audit_*"]', kind="list",
              default='["*.*"]', item=_TABLE),
        _MODE,
        _HISTORY,
        *_POLICIES,
        _LAKE,
        _WAREHOUSE,
        _DBT,
        Field("mask_key", "where the key of the masks `hash` and `tokenize` is: at least 32 characters",
              "env:HEADWATER_MASK_KEY", kind="secret"),
        Field("state", "the SQLite file with run records and leases", "headwater.db", kind="path",
              default="<store>/state/headwater.db; for S3 under ~/.local/state/headwater"),
        Field("memory_limit", "how much memory DuckDB may use before it spills to disk", "1GB", default="1GB",
              pattern=r"[1-9][0-9]*(\.[0-9]+)? ?([KMGT]i?B)", wants="a size with its unit"),
    ),
)  # fmt: skip
