"""From a model file back to a model."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import DataError, FastdlError
from ..io import load_state
from ..nn import Sequential
from .alexnet import alexnet, alexnet_32
from .digits import digits_cnn
from .gap import gap_net
from .lenet import lenet5
from .mnist import mnist_cnn
from .resnet import resnet9, resnet18, resnet20, resnet50
from .vgg import vgg11, vgg11_32, vgg16, vgg16_32

#: What makes each network, by the name that a model file gives under "model".
BUILDERS: dict[str, Callable[..., Sequential]] = {
    builder.__name__: builder
    for builder in (
        alexnet,
        alexnet_32,
        digits_cnn,
        gap_net,
        lenet5,
        mnist_cnn,
        resnet9,
        resnet18,
        resnet20,
        resnet50,
        vgg11,
        vgg11_32,
        vgg16,
        vgg16_32,
    )
}


def load(path: str | os.PathLike[str]) -> Sequential:
    """The network that `fastdl train` wrote, in evaluation mode, ready to predict.

    The file's metadata name the network under "model" and, where they are not
    the builder's defaults, tell its "classes" and "channels". `train()` of the
    result makes it learn on.

    Parameters
    ----------
    path : path
        The file, such as ``fastdl-run/model.safetensors``.

    Returns
    -------
    Sequential
        ``model.predict(images)`` gives scores; ``.argmax(1)`` of them the classes.

    Raises
    ------
    OSError
        If the file is missing or cannot be read.
    DataError
        If the file is broken, or names no network of `BUILDERS`, or does not fit it.

    Examples
    --------
    >>> import os, tempfile
    >>> from fastdl import data, io, models
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> io.save_state(path, models.digits_cnn(rng=0).state_dict(), {"model": "digits_cnn"})
    >>> models.load(path).predict(data.load_digits().test.x).argmax(1).shape
    (359,)
    """
    state, metadata = load_state(path)
    name = metadata.get("model")
    if name not in BUILDERS:
        raise DataError(
            f"{os.fspath(path)}: metadata 'model' must be one of {sorted(BUILDERS)}, got {name!r}"
        )
    lengths = {str(length) for array in state.values() for length in array.shape}
    sizes = {key: metadata[key] for key in ("classes", "channels") if key in metadata}
    for key, value in sizes.items():
        if value not in lengths:
            raise DataError(
                f"{os.fspath(path)}: metadata {key!r} must be the length of an axis of an array "
                f"in the file, got {value!r}"
            )
    try:
        model = BUILDERS[name](**{key: int(value) for key, value in sizes.items()})
        model.load_state_dict(state)
    except FastdlError as error:
        raise DataError(f"{os.fspath(path)} does not fit the network {name}: {error}") from error
    return model.eval()
