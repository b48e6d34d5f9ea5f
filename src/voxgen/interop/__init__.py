"""To and from what existing code has: sparse tensors of torchsparse, spconv and the TRELLIS family, and trimesh meshes.

Nothing is imported that is not needed: tensors are known by their attributes, and a library is imported only to make one of
its tensors out of nothing.
"""

from ._drop_in import DropInLayer as DropInLayer
from ._drop_in import GridCache as GridCache
from ._imported import Imported as Imported
from ._spconv import from_spconv as from_spconv
from ._spconv import to_spconv as to_spconv
from ._torchsparse import from_torchsparse as from_torchsparse
from ._torchsparse import to_torchsparse as to_torchsparse
from ._trellis import from_trellis as from_trellis
from ._trellis import to_trellis as to_trellis
from ._trimesh import from_trimesh as from_trimesh
from ._trimesh import to_trimesh as to_trimesh
from ._trimesh import to_trimesh_scene as to_trimesh_scene

__all__ = [
    "DropInLayer",
    "GridCache",
    "Imported",
    "from_spconv",
    "from_torchsparse",
    "from_trellis",
    "from_trimesh",
    "to_spconv",
    "to_torchsparse",
    "to_trellis",
    "to_trimesh",
    "to_trimesh_scene",
]
