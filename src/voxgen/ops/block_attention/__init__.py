"""Attention of queries to blocks of keys: in windows, on compression tokens, on chosen blocks.

All three are one operation with other lists: each query sees the keys of the blocks on its list (`_lists`). So they share
their engines. Heads are grouped: query head h reads key head h // (H / Hk).
"""

from ._compression import compression_attention
from ._run import BLOCK_ATTENTION, Attended
from ._selection import selection_attention
from ._window import window_attention

__all__ = ["BLOCK_ATTENTION", "Attended", "compression_attention", "selection_attention", "window_attention"]
