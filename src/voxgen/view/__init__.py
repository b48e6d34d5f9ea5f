"""An interactive viewer in the browser for meshes, O-Voxels, sparse SDFs, SparseFlex, Gaussians and oriented points."""

from ._files import Viewable as Viewable
from ._files import open_file as open_file
from ._layers import FILE_RESOLUTION as FILE_RESOLUTION
from ._layers import Layers as Layers
from ._layers import layers as layers
from ._viewer import Viewer as Viewer

__all__ = ["FILE_RESOLUTION", "Layers", "Viewable", "Viewer", "layers", "open_file"]
