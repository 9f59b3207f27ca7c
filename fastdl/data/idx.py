"""The IDX format, in which MNIST comes."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

#: The third byte of a file tells its type; all numbers are big endian.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
#: At most this much is read at a time: a header may promise more than memory holds.
_PIECE = 1 << 24


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    r"""The array in an IDX file, or in one compressed by gzip (``*.gz``).

    Parameters
    ----------
    path : path
        Such as ``train-images-idx3-ubyte.gz``.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    DataError
        If it is not in the format, is cut short, or goes on after its end.

    References
    ----------
    LeCun, Cortes and Burges, "The MNIST database of handwritten digits",
    section "File formats".

    Examples
    --------
    >>> import os, tempfile
    >>> from fastdl import data
    >>> path = os.path.join(tempfile.mkdtemp(), "labels-idx1-ubyte")
    >>> with open(path, "wb") as file:
    ...     _ = file.write(b"\0\0\x08\x01" + b"\0\0\0\x03" + b"\x07\x02\x01")
    >>> data.read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    name = os.fspath(path)
    opened: Any = gzip.open if name.endswith(".gz") else open
    try:
        with opened(name, "rb") as file:
            return _read(file, name)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name} is not a whole gzip file: {error}") from error


def _read(file: IO[bytes], name: str) -> NDArray[Any]:
    magic = _exactly(file, 4, name)
    if magic[:2] != b"\0\0" or magic[2] not in _TYPES or not magic[3]:
        raise DataError(
            f"{name} is not an IDX file: it begins with the bytes {magic.hex(' ')}, expected "
            f"00 00, a type of {', '.join(f'{code:02x}' for code in _TYPES)}, and the number of axes"
        )
    dtype, axes = np.dtype(_TYPES[magic[2]]), magic[3]
    shape = struct.unpack(f">{axes}I", _exactly(file, 4 * axes, name))
    content = _exactly(file, math.prod(shape) * dtype.itemsize, name)
    if file.read(1):
        raise DataError(f"{name} goes on after the {len(content)} bytes of its array {shape}")
    return np.frombuffer(content, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _exactly(file: IO[bytes], size: int, name: str) -> bytearray:
    content = bytearray()
    while len(content) < size:
        piece = file.read(min(_PIECE, size - len(content)))
        if not piece:
            raise DataError(f"{name} is cut short: {size - len(content)} of {size} bytes missing")
        content += piece
    return content
