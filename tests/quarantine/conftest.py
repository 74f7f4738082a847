"""Stores for stories, as the oracle has them."""

from oracle.conftest import worlds

__all__ = ["worlds"]
