"""Every field of `headwater.yml`, as data: the reader, the JSON Schema and the documentation follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "path", "number", "flag", "secret", "moment", "mapping", "list", "plain"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: what it means, what it may hold, and an example a user can copy.

    blank     of a text: it may be empty
    kind      "path": relative to the file; "secret": a reference only; "moment": a date, a time or null;
              "plain": a mapping of whatever JSON can hold
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
    blank: bool = False
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

_CAST = Field(
    "cast",
    "the type that a column gets in the lake and behind it, in letters or in words: `@I`, `@D(yyyyMMdd)`, "
    "`bigint`, `{to: date, format: yyyyMMdd}`; type-changes.md",
    "{orderdate: {to: date, format: yyyyMMdd}, qty: '@I'}",
    kind="mapping",
    each=Field(
        "cast",
        "one column's type",
        "{to: date, format: yyyyMMdd, empty: ['00000000']}",
        kind="mapping",
        fields=(
            Field("to", "the type: `integer`, `bigint`, `double`, `decimal(p,s)`, `date`, `timestamp`, "
                  "`time`, or `hex` for bytes", "date", required=True),
            Field("format", "how the source writes a date or time", "yyyyMMdd"),
            Field("empty", "texts that mean NULL", "['00000000', '']", kind="list",
                  item=Field("empty", "a text that means NULL", "'00000000'", blank=True)),
        ),
        short=Field("cast", "one column's type, in letters or in a word", "'@D(yyyyMMdd)'"),
    ),
)  # fmt: skip

_ON_CAST_ERROR = Field(
    "on_cast_error",
    "what becomes of a row with a value that does not fit its `cast`: `quarantine` sets it and all later "
    "changes of its key aside, `null` leaves the cell empty and keeps the source's text in `_hw_text`, "
    "`fail` stops the table; quarantine.md",
    "null",
    choices=("quarantine", "null", "fail"),
    default="quarantine",
)

_RELATION = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
_LITERAL = "[A-Za-z0-9_]{0,12}"
_TEMPLATE = f"{_LITERAL}(<schema>{_LITERAL})?<table>{_LITERAL}"
_TEMPLATE_WANTS = "`<table>`, at most one `<schema>` before it, and up to 12 letters, digits or _ around each"

_NAMES = Field(
    "names",
    "what the tables are called in the warehouse; names.md",
    "{current: <table>, history: <table>_history}",
    kind="mapping",
    fields=(
        Field(
            "current",
            "the name of a table's current rows",
            "dw_<table>",
            default="stg_<schema>__<table>",
            pattern=_TEMPLATE,
            wants=_TEMPLATE_WANTS,
        ),
        Field(
            "history",
            "the name of a table's history",
            "dw_<table>_history",
            default="as `current`, and `__history`",
            pattern=_TEMPLATE,
            wants=_TEMPLATE_WANTS,
        ),
        Field(
            "case",
            "`unique`: small letters, and a hash where the source has capitals; `lower`, `upper`, "
            "`keep`: no hash, and two tables that come to one name are refused",
            "lower",
            default="unique",
            choices=("unique", "lower", "upper", "keep"),
        ),
    ),
)

_COLUMNS = Field(
    "columns",
    "the columns to copy: names or globs, `!` leaves columns out; without it all",
    '["*", "!internal_*"]',
    kind="list",
    item=Field("columns", "a column or a glob", '"!internal_*"'),
)

_SIZE = r"[1-9][0-9]*(\.[0-9]+)? ?([MGT]i?B)"
_FILES = (
    Field("compression", "how the lake's Parquet files are compressed, from now on", "snappy",
          default="zstd", choices=("zstd", "snappy", "gzip")),
    Field("file_size", "about how large a file of a mirror or a history grows; a change writes its file anew",
          "128MB", default="about 96MB, at most 245,760 rows", pattern=_SIZE,
          wants="a size of 1MB or more with its unit"),
    Field("slices", "into how many files of about one size each folder, or a table without folders, is "
          "divided, for engines that read with so many workers", "4", kind="number", default="1", highest=64),
)  # fmt: skip

_PARTITION = Field(
    "partition",
    "the folders that the files of the table's mirror and history lie in; partitions.md",
    "/@4(yr=%y)/@4(mth=%M)",
)

_FORMATS = ("delta", "iceberg", "parquet", "orc", "csv")
_FORMAT = Field(
    "format",
    "the formats of mirror and history for other engines: Delta is always there, the others are views of it "
    "that follow each compaction; formats.md",
    "[delta, iceberg]",
    kind="list",
    default="delta",
    item=Field("format", "a format", "iceberg", choices=_FORMATS),
    short=Field("format", "one format", "iceberg", choices=_FORMATS),
)
_CSV = Field(
    "csv_compression",
    "how the files of `format: csv` are compressed",
    "bzip2",
    choices=("gzip", "bzip2", "none"),
    default="gzip",
)

_KEY = Field(
    "key",
    "the columns that tell rows apart, where the source has no key or another one",
    "[tenant, id]",
    kind="list",
    item=Field("key", "a column", "id"),
)  # fmt: skip

_CHOICES = (
    _KEY,
    Field("where", "which rows are copied, at the full load and afterwards; tables.md",
          "status <> 'test' and amount >= 10"),
    Field("initial_where", "which rows a full load reads; all later changes are copied",
          "ordered_at >= '2025-01-01'"),
    Field("initial_load", "`skip`: no first load, only what happens from now on", "skip", default="full",
          choices=("full", "skip")),
    Field("deltas", "`false`: no changes from the log; the table is read whole with each run", "false",
          kind="flag", default="true"),
    Field("views", "`true`: the pattern fits views, materialised views and foreign tables too", "true",
          kind="flag", default="false"),
)  # fmt: skip

_GATE = Field(
    "gate",
    "`warn` judges what each run brought and says what is wrong; `block` also holds the handoff of a table "
    "back that fails; `off` judges nothing; quality.md",
    "warn",
    choices=("off", "warn", "block"),
    default="off",
)
_MAX_AGE = Field(
    "max_age",
    "how old the newest change of a table may be",
    "2h",
    pattern="[1-9][0-9]{0,5}(s|min|h|d)",
    wants="a number of s, min, h or d",
)
_QUALITY = Field(
    "quality",
    "whether the data is judged, by rules made from the schema and from what was seen before; quality.md",
    "{gate: block, max_age: 2h}",
    kind="mapping",
    fields=(_GATE, _MAX_AGE),
    short=_GATE,
)
_REFERENCES = Field(
    "references",
    "columns whose values are those of another copied table's key, beside the source's own foreign keys",
    "[{columns: [customer_id], table: public.customers}]",
    kind="list",
    item=Field(
        "references",
        "one reference",
        "{columns: [customer_id], table: public.customers}",
        kind="mapping",
        fields=(
            Field("columns", "the columns that refer", "[customer_id]", kind="list", required=True,
                  item=Field("columns", "a column", "customer_id")),
            Field("table", "the table they refer to", "public.customers", required=True),
            Field("key", "the columns they name there; default: its key", "[id]", kind="list",
                  item=Field("key", "a column", "id")),
        ),
    ),
)  # fmt: skip
_EXPECT = Field(
    "expect",
    "expectations of Great Expectations that the table is judged by too; quality.md",
    "[{type: expect_column_values_to_be_between, kwargs: {column: price, min_value: 0}}]",
    kind="list",
    item=Field(
        "expect",
        "one expectation",
        "{type: expect_column_values_to_be_between, kwargs: {column: price, min_value: 0}}",
        kind="mapping",
        fields=(
            Field("type", "its name", "expect_column_values_to_be_between", required=True,
                  pattern="[a-z][a-z0-9_]*", wants="a name such as expect_column_values_to_be_between"),
            Field("kwargs", "what it takes, with columns as the source calls them",
                  "{column: price, min_value: 0}", kind="plain"),
            Field("severity", "what a failure is: with `critical` the table fails", "warning",
                  choices=("critical", "warning", "info"), default="critical"),
        ),
    ),
)  # fmt: skip

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
        *_CHOICES,
        _CAST,
        _ON_CAST_ERROR,
        _PARTITION,
        Field("lake", "how the lake's files of these tables are written", "{compression: snappy, slices: 4}",
              kind="mapping", fields=_FILES),
        _FORMAT,
        _CSV,
        Field("as", "what this table's current rows are called in the warehouse, whatever `names` says; for "
              "one table, not for a pattern", "orders", pattern=_RELATION,
              wants="a name of up to 63 letters, digits and underscores that begins with no digit"),
        *_POLICIES,
        _QUALITY,
        _EXPECT,
        _REFERENCES,
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
        Field("keep_staging", "whether the staged changes stay in the warehouse after a build, for plain "
              "`dbt build` and to look at", "false", kind="flag", default="true"),
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
        *_FILES,
        _FORMAT,
        _CSV,
        Field("glue", "the database of the AWS Glue catalogue that the tables of `format` are registered in, "
              "for Athena and Spectrum; needs a store in S3", "{database: shop, region: eu-central-1}",
              kind="mapping",
              fields=(
                  Field("database", "its name; made if there is none", "shop", required=True,
                        pattern=r"[a-z0-9_]{1,255}", wants="small letters, digits and underscores"),
                  Field("region", "the catalogue's region; default: the store's", "eu-central-1"),
                  Field("endpoint", "another address than AWS", "https://glue.example.com"),
              )),
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
        _QUALITY,
        _LAKE,
        _WAREHOUSE,
        _NAMES,
        _DBT,
        Field("mask_key", "where the key of the masks `hash` and `tokenize` is: at least 32 characters",
              "env:HEADWATER_MASK_KEY", kind="secret"),
        Field("verify", "how load certificates are made; verify.md", "{sign: env:HEADWATER_SIGN_KEY}",
              kind="mapping", fields=(
                  Field("sign", "where the key is that certificates are signed with: at least 32 characters",
                        "env:HEADWATER_SIGN_KEY", kind="secret"),
              )),
        Field("state", "the SQLite file with run records and leases", "headwater.db", kind="path",
              default="<store>/state/headwater.db; for S3 under ~/.local/state/headwater"),
        Field("memory_limit", "how much memory DuckDB may use before it spills to disk", "1GB", default="1GB",
              pattern=r"[1-9][0-9]*(\.[0-9]+)? ?([KMGT]i?B)", wants="a size with its unit"),
    ),
)  # fmt: skip
