"""``fastdl predict``: what a trained network sees in an image."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional
from ..backends.registry import NAMES, current_name, use_backend
from ..data import read_image
from ..io import load_state
from ..models import load
from ..nn import Layer
from ..threads import set_num_threads
from .arguments import DEVICE_HELP, whole
from .description import Description

EPILOG = """\
examples:
  fastdl predict fastdl-run/model.safetensors cat.jpg
  fastdl predict fastdl-run/model.safetensors scans/*.png --invert --top 1
"""


def add_parser(subparsers: Any) -> None:
    """Add ``predict`` to the command's parser."""
    parser = subparsers.add_parser(
        "predict",
        help="say what a trained network sees in images",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Show the likeliest classes of each image, and their probabilities. An image of another\n"
            "size than the network learnt from is cut to its shape about the middle, and scaled."
        ),
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model.safetensors that `fastdl train` wrote")
    add("images", metavar="IMAGE", nargs="+", help="image files (JPEG, PNG, ...)")
    add(
        "--top",
        type=whole(1),
        default=3,
        metavar="K",
        help="classes to show (default: %(default)s)",
    )
    add(
        "--invert",
        action="store_true",
        help="turn dark into light: the digits of MNIST and scikit-learn are light on dark",
    )
    add("--backend", choices=NAMES, help="default: the first that works here")
    add("--device", default="cpu", metavar="NAME", help=DEVICE_HELP)
    add("--threads", type=whole(1, 1024), metavar="N", help="default: one a processor")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a table; the exit status."""
    if args.threads is not None:
        set_num_threads(args.threads)
    with use_backend(current_name(args.backend)):
        model = load(args.model).to(args.device)
        description = Description.read(args.model, load_state(args.model)[1])
        width = max(map(len, args.images))
        for path in args.images:
            chances = _probabilities(model, description, path, args.invert)
            print(f"{path:<{width}}  {_row(description.classes, chances, args.top)}")
    return 0


def _probabilities(model: Layer, description: Description, path: str, invert: bool) -> NDArray[Any]:
    channels, *size = description.image_shape
    pixels = read_image(path, (size[0], size[1]), channels)[np.newaxis]
    x = description.normalize(~pixels if invert else pixels)
    (chances,) = functional.softmax(model.predict(x))
    return np.asarray(chances)


def _row(classes: tuple[str, ...], chances: NDArray[Any], top: int) -> str:
    order = np.argsort(-chances, kind="stable")[:top]
    name_width = max(map(len, classes))
    return "  ".join(f"{classes[k]:<{name_width}} {chances[k]:6.1%}" for k in order)
