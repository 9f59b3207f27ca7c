"""``fastdl train``: a small network learns to read handwritten digits."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import __version__
from ..backends.registry import NAMES, current_name, use_backend
from ..data import Digits, Samples, load_digits
from ..errors import FastdlError
from ..models import digits_cnn
from ..nn import CrossEntropyLoss, Layer
from ..optim import Adam
from ..threads import get_num_threads, set_num_threads
from ..train import Run, evaluate, fit, naive_images_per_second
from .arguments import positive, whole
from .progress import Progress
from .status import INTERRUPTED

LABEL_SMOOTHING = 0.1
#: For the step on the naive loops. Its time is proportional to the images.
NAIVE_IMAGES = 2


def add_parser(subparsers: Any) -> None:
    """Add ``train`` to the command's parser."""
    parser = subparsers.add_parser(
        "train",
        help="train a small network on handwritten digits",
        description=(
            "Train a small convolutional network on scikit-learn's digits. The best model by "
            "validation loss, the history and the learning curve go to DIR: an earlier run "
            "there is replaced, other files stay. Ctrl-C keeps the best model so far."
        ),
    )
    add = parser.add_argument
    add("--epochs", type=whole(1), default=30, metavar="N", help="default: %(default)s")
    add("--batch-size", type=whole(1), default=32, metavar="N", help="default: %(default)s")
    add(
        "--lr",
        type=positive,
        default=2e-3,
        metavar="X",
        help="Adam's learning rate at the start; it falls to zero (default: %(default)s)",
    )
    add(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="of first weights, order and dropout, not of the split (default: %(default)s)",
    )
    add("--output", default="./fastdl-run", metavar="DIR", help="default: %(default)s")
    add("--backend", choices=NAMES, help="default: the first that works here")
    add("--threads", type=whole(1, 1024), metavar="N", help="default: one a processor")
    add("--no-progress", action="store_true", help="no bar, only a line an epoch")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train as ``args`` say; the exit status."""
    if args.threads is not None:
        set_num_threads(args.threads)
    with use_backend(current_name(args.backend)):
        return _train(args)


def _train(args: argparse.Namespace) -> int:
    # Whatever can be wrong shows before the training: packages, the folder, the data.
    output = Run(args.output, {"model": "digits_cnn"}, _settings(args))
    digits = load_digits()
    steps = args.epochs * math.ceil(len(digits.train.x) / args.batch_size)
    progress = Progress(args.epochs, steps, bar=not args.no_progress)
    model = digits_cnn(rng=args.seed)
    try:
        print(_opening(output, digits), flush=True)
        with progress:
            for epoch in fit(
                model,
                Adam(args.lr),
                digits.train,
                digits.validation,
                epochs=args.epochs,
                batch_size=args.batch_size,
                loss=CrossEntropyLoss(LABEL_SMOOTHING),
                rng=args.seed,
                after_step=progress.step,
            ):
                output.add(epoch, model)
                progress.epoch(epoch, output.best)
        _test(output, model, digits.test)
        _compare(output, digits.train)
        output.finish()
    except KeyboardInterrupt:
        with _deaf():
            output.stop()
            print(f"fastdl: interrupted; {_kept(output)}", file=sys.stderr)
        return INTERRUPTED
    except FastdlError:
        output.stop()
        print(f"fastdl: {_kept(output)}", file=sys.stderr)
        raise
    print("wrote " + ", ".join(map(str, output.files)))
    return 0


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "fastdl": __version__,
        "backend": current_name(),
        "threads": get_num_threads(),
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "lr": args.lr,
        "seed": args.seed,
        "label_smoothing": LABEL_SMOOTHING,
    }


def _opening(output: Run, digits: Digits) -> str:
    settings = output.history.settings
    train, validation, test = (len(samples.x) for samples in digits)
    lines = [
        f"fastdl {__version__}: backend {settings['backend']}, threads {settings['threads']}",
        f"digits: {train} images to train on, {validation} to choose the best epoch, {test} to test",
    ]
    if output.replaces:
        lines.append(f"the earlier run in {output.folder} will be replaced")
    return "\n".join(lines)


def _test(output: Run, model: Layer, test: Samples) -> None:
    """Judge the kept model by images that neither trained nor chose it."""
    output.restore_best(model)
    loss, accuracy = evaluate(model, test)
    count = len(test.x)
    output.history.results |= {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "test_images": count,
        "images_per_second": output.history.images_per_second,
    }
    print(
        f"test accuracy: {accuracy:.2%} ({round(accuracy * count)} of {count} images, "
        f"the model of epoch {output.history.best_epoch})\n"
        f"training speed: {output.history.images_per_second:.0f} images/s "
        f"(forward, backward and update; median epoch)",
        flush=True,
    )


def _compare(output: Run, train: Samples) -> None:
    """Say how much faster the training went than the naive loops would."""
    fast = output.history.images_per_second
    few = Samples(train.x[:NAIVE_IMAGES], train.y[:NAIVE_IMAGES])
    naive = naive_images_per_second(digits_cnn(rng=0), few)
    output.history.results |= {
        "naive_images_per_second": naive,
        "naive_images": len(few.x),
        "times_as_fast_as_naive": fast / naive,
    }
    print(
        f"{fast / naive:.0f} times as fast as the naive loops "
        f"({naive:.2f} images/s in the same step, on a batch of {len(few.x)})",
        flush=True,
    )


def _kept(output: Run) -> str:
    if output.best is None:
        return "no epoch had ended, so nothing was written"
    return (
        f"the best model so far (epoch {output.best.number}, validation accuracy "
        f"{output.best.validation_accuracy:.2%}), history and picture are in {output.folder}"
    )


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a second Ctrl-C not spoil the saving that the first one asked for."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
