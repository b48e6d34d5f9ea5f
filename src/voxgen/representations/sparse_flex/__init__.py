"""SparseFlex: a field at the corners of sparse cells, whose surface may be open (TripoSF)."""

from ._features import SparseFlexPrediction as SparseFlexPrediction
from ._fields import SparseFlex as SparseFlex

__all__ = ["SparseFlex", "SparseFlexPrediction"]
