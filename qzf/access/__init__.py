"""Reading tensors out of a container: the public face of ``qzf.open``."""

from qzf.access.arrays import QuantArray
from qzf.access.container import Container
from qzf.access.layers import Layer
from qzf.access.numbers import dequantize_array
from qzf.access.opening import open_container
from qzf.access.slices import TensorSlice
from qzf.access.stream import Part

__all__ = ["Container", "Layer", "Part", "QuantArray", "TensorSlice", "dequantize_array", "open_container"]
