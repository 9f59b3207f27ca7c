"""From a model file back to a model."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import DataError, FastdlError
from ..io import load_state
from ..nn import Sequential
from .digits import digits_cnn

#: What makes each network, by the name that a model file gives under "model".
BUILDERS: dict[str, Callable[[], Sequential]] = {"digits_cnn": digits_cnn}


def load(path: str | os.PathLike[str]) -> Sequential:
    """The network that `fastdl train` wrote, in evaluation mode, ready to predict (`train()` makes it learn on).

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
    model = BUILDERS[name]()
    try:
        model.load_state_dict(state)
    except FastdlError as error:
        raise DataError(f"{os.fspath(path)} does not fit the network {name}: {error}") from error
    return model.eval()
