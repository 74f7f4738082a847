"""PostgreSQL 14 to 18 as a source: exported snapshots and the logical log (pgoutput)."""

from headwater.sources.postgres.source import PostgresSource

__all__ = ["PostgresSource"]
