"""What a model file's metadata tell of the images that the model takes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from ..data import Dataset, Normalize
from ..errors import DataError, FastdlError


@dataclass(frozen=True)
class Description:
    """The classes that a model tells apart, and how images become its input.

    Attributes
    ----------
    classes : tuple of str
    image_shape : (channels, height, width)
    normalize : Normalize
    """

    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    normalize: Normalize

    @classmethod
    def of(cls, dataset: Dataset, normalize: Normalize) -> Description:
        """Of a model that learns from ``dataset``."""
        return cls(dataset.classes, dataset.image_shape, normalize)

    def metadata(self, model: str) -> dict[str, str]:
        """For the file of the network ``model``; `fastdl.models.load` reads the first three."""
        return {
            "model": model,
            "classes": str(len(self.classes)),
            "channels": str(self.image_shape[0]),
            "class_names": json.dumps(self.classes),
            "image_shape": json.dumps(self.image_shape),
            "mean": json.dumps(self.normalize.mean),
            "std": json.dumps(self.normalize.std),
        }

    @classmethod
    def read(cls, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Description:
        """From the metadata of the file ``path``.

        Raises
        ------
        DataError
            If they do not tell it.
        """
        try:
            channels, height, width = map(int, json.loads(metadata["image_shape"]))
            if min(channels, height, width) < 1:
                raise ValueError(f"image_shape is {metadata['image_shape']}")
            return cls(
                tuple(map(str, json.loads(metadata["class_names"]))),
                (channels, height, width),
                Normalize(json.loads(metadata["mean"]), json.loads(metadata["std"])),
            )
        except (KeyError, ValueError, TypeError, FastdlError) as error:
            raise DataError(
                f"{os.fspath(path)} does not tell what images its model takes ({error!r}): "
                f"give a file that `fastdl train` wrote"
            ) from error
