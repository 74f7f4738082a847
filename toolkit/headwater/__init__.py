"""Headwater: log capture to Parquet you own, lake tables with history, and dbt models."""

__version__ = "0.1.0"
