"""Notebook widgets for Headwater: thin views over the `headwater` package."""
