"""Which cells an upsampling module may make, and which of them the surface really touches.

Plain torch on packed keys, on any device; there is one engine, so nothing to choose.
"""

from ._generate import CandidateKind, Candidates, candidates
from ._targets import Redundancy, candidate_targets, level_structures, redundancy

__all__ = ["CandidateKind", "Candidates", "Redundancy", "candidate_targets", "candidates", "level_structures", "redundancy"]
