"""Masks and the choice of columns: what leaves a source is masked before anything is stored. docs/masks.md.

`rules` decides from the configuration and a schema, `functions` has the masks, `rows` puts a batch through
them, `source` stands before any source.
"""

from headwater.masking.functions import MASKS, MaskKey
from headwater.masking.rules import changed, describe
from headwater.masking.source import Masked

__all__ = ["MASKS", "MaskKey", "Masked", "changed", "describe"]
