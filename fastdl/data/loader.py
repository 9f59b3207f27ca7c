"""From samples to batches, made while the training is busy with the one before."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DTypeError, ShapeError
from ..geometry import integer
from .normalize import Normalize, output_dtype
from .samples import Samples
from .transforms import Transform

Array = NDArray[Any]
Batch = tuple[Array, NDArray[np.int64]]
#: Batches that are ready or being made while one is in use.
PREFETCH = 2


class Loader:
    """Batches of every sample once, in each epoch anew, from a thread of their own.

    The same seed and epoch give the same batches, whatever the timing.

    Parameters
    ----------
    samples : Samples
        uint8 images, or floats.
    batch_size : int, default 32
        At least 1; the last batch may be smaller.
    shuffle : bool, default True
        A new order for each epoch.
    transforms : sequence of Transform
        Random changes of the images, in order.
    normalize : Normalize, optional
        By default bytes become numbers from 0 to 1, and floats stay.
    seed : int, default 0
        Of order and transforms.

    Raises
    ------
    ArgumentError
        If ``batch_size`` is not positive, or there are no samples.
    ShapeError
        If there are not as many labels as images.
    DTypeError
        If the images are neither uint8 nor floats.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import data
    >>> samples = data.Samples(np.zeros((5, 1, 8, 8), np.uint8), np.arange(5))
    >>> loader = data.Loader(samples, 2, transforms=[data.Shift(1)])
    >>> [(len(x), x.dtype.name) for x, y in loader.epoch(1)]
    [(2, 'float32'), (2, 'float32'), (1, 'float32')]
    """

    def __init__(
        self,
        samples: Samples,
        batch_size: int = 32,
        *,
        shuffle: bool = True,
        transforms: Sequence[Transform] = (),
        normalize: Normalize | None = None,
        seed: int = 0,
    ) -> None:
        x, y = samples
        if len(x) != len(y):
            raise ShapeError(f"x and y must be equally long, got {len(x)} and {len(y)}")
        if not len(x):
            raise ArgumentError("there must be at least one sample, got none")
        if x.dtype != np.uint8 and x.dtype.kind != "f":
            raise DTypeError(f"x must be uint8 or of floats, got {x.dtype}")
        self.samples, self.batch_size = samples, integer("batch_size", batch_size, 1)
        self.shuffle, self.transforms = shuffle, tuple(transforms)
        self.normalize, self.seed = normalize or Normalize(), integer("seed", seed, 0)
        self._spare: list[_Buffer] = []

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.samples.x) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """``epoch(0)``."""
        return self.epoch(0)

    def epoch(self, number: int) -> Generator[Batch, None, None]:
        """The batches (x, y) of epoch ``number``; asking for the next one overwrites x."""
        free: SimpleQueue[_Buffer | None] = SimpleQueue()
        ready: SimpleQueue[tuple[_Buffer, Batch] | BaseException] = SimpleQueue()
        buffers = [self._spare.pop() if self._spare else _Buffer() for _ in range(PREFETCH + 1)]
        for buffer in buffers:
            free.put(buffer)
        maker = threading.Thread(
            target=self._make, args=(number, free, ready), name="fastdl-loader", daemon=True
        )
        maker.start()
        try:
            for _ in range(len(self)):
                made = ready.get()
                if isinstance(made, BaseException):
                    raise made
                yield made[1]
                free.put(made[0])
        finally:
            free.put(None)
            maker.join()
            self._spare += buffers

    def _make(
        self,
        number: int,
        free: SimpleQueue[_Buffer | None],
        ready: SimpleQueue[tuple[_Buffer, Batch] | BaseException],
    ) -> None:
        """The thread: from ``free`` buffers to ``ready`` batches, until a None comes."""
        try:
            count = len(self.samples.x)
            # All that is random comes from here, in the order of the batches.
            rng = np.random.default_rng([self.seed, number])
            order = rng.permutation(count) if self.shuffle else None
            for start in range(0, count, self.batch_size):
                buffer = free.get()
                if buffer is None:
                    return
                part = slice(start, start + self.batch_size)
                ready.put(
                    (buffer, self._batch(part if order is None else order[part], rng, buffer))
                )
        except BaseException as error:
            ready.put(error)

    def _batch(self, chosen: Any, rng: np.random.Generator, buffer: _Buffer) -> Batch:
        x = self.samples.x[chosen]
        for transform in self.transforms:
            x = transform(x, rng)
        return self.normalize(x, buffer.take(x.shape, output_dtype(x))), self.samples.y[chosen]


class _Buffer:
    """Memory of a batch, kept for the next one."""

    def __init__(self) -> None:
        self.array = np.empty(0)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """An array of that shape and dtype in it."""
        own = self.array
        if own.shape[1:] != shape[1:] or len(own) < shape[0] or own.dtype != dtype:
            self.array = np.empty(shape, dtype)
        return self.array[: shape[0]]
