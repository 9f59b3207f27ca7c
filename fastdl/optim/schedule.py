"""How the learning rate changes during training."""

from __future__ import annotations

import math


def cosine(progress: float) -> float:
    """``(1 + cos(pi * progress)) / 2``: from 1 at the start of training to 0 at its end.

    Parameters
    ----------
    progress : float
        Steps done over all steps, 0 to 1.

    References
    ----------
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm
    restarts", ICLR 2017, equation 5 (without restarts).

    Examples
    --------
    >>> from fastdl import optim
    >>> [round(optim.cosine(progress), 3) for progress in (0, 0.5, 1)]
    [1.0, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * progress)) / 2
