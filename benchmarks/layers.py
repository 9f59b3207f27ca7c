"""The list of layers, shared with ``fastdl bench``: it stands in `fastdl.bench.layers`."""

from fastdl.bench.layer import Layer
from fastdl.bench.layers import LAYERS, REPRESENTATIVE, select

__all__ = ["LAYERS", "REPRESENTATIVE", "Layer", "select"]
