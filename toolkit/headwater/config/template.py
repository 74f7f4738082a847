"""The file that `headwater init` writes."""

from __future__ import annotations

from pathlib import Path

from headwater.config import Config, to_yaml
from headwater.config.files import PASSWORD_VARIABLE

_TEMPLATE = """\
# One Headwater pipeline. All fields: docs/configuration.md
pipeline: shop

source:
  kind: postgres
  host: db.example.com
  user: headwater
  dbname: shop
  password: env:{variable}   # never the password itself
  # sslrootcert: certs/root.crt               # the server's certificate is always verified

# A folder, or s3://bucket/prefix.
store: ./lake

# Patterns over schema.table; ! leaves tables out; a mapping gives a table settings of its own.
tables:
  - public.*
  # - "!public.audit_*"
  # - name: public.sessions
  #   mode: mirror          # current rows only; the default, history, keeps every version

# Without this the run ends at the lake.
warehouse: duckdb:///warehouse.duckdb
"""


def template() -> str:
    """A file to start from."""
    return _TEMPLATE.format(variable=PASSWORD_VARIABLE)


def commented(config: Config, folder: Path) -> str:
    """The file for a config, with a line on where the password comes from if it was given by value."""
    head = "# One Headwater pipeline. All fields: docs/configuration.md\n"
    if config.secrets():
        head += f"# Before a run: export {PASSWORD_VARIABLE}=...\n"
    return head + to_yaml(config, folder=folder)
