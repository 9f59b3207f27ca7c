"""From an image file to an array."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DataError
from ..packages import needed

#: What Pillow calls an image of so many channels.
_MODES = {1: "L", 3: "RGB"}


def read_image(
    path: str | os.PathLike[str], size: tuple[int, int] | None = None, channels: int = 3
) -> NDArray[np.uint8]:
    """The pixels of an image file, turned upright as its camera noted.

    Parameters
    ----------
    path : path
        Of any format that Pillow reads.
    size : (height, width), optional
        Cut the middle to this shape and scale it. By default the size stays.
    channels : {3, 1}
        Colour or grey.

    Returns
    -------
    ndarray (channels, height, width) of uint8

    Raises
    ------
    ArgumentError
        If ``channels`` is neither 1 nor 3.
    OSError
        If the file is missing or cannot be read.
    DataError
        If it is not a whole image.
    MissingPackageError
        If Pillow is not installed.
    """
    if channels not in _MODES:
        raise ArgumentError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}")
    pil: Any = needed("PIL.Image", "pillow", "an image file")
    with open(path, "rb") as file:
        try:
            with pil.open(file) as image:
                pixels = np.asarray(_prepared(image, size, _MODES[channels]))
        # What Pillow raises on broken files, whatever the format.
        except (
            *(OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError),
            pil.DecompressionBombError,
        ) as error:
            raise DataError(f"{os.fspath(path)} is not a readable image: {error}") from error
    return pixels.transpose(2, 0, 1) if channels > 1 else pixels[np.newaxis]


def _prepared(image: Any, size: tuple[int, int] | None, mode: str) -> Any:
    operations: Any = needed("PIL.ImageOps", "pillow", "an image file")
    if "exif" in image.info:
        image = operations.exif_transpose(image)
    if image.mode != mode:
        image = image.convert(mode)
    if size is not None and image.size != size[::-1]:
        image = operations.fit(image, size[::-1], method=2)  # bilinear
    return image
