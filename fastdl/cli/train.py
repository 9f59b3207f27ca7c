"""``fastdl train``: a network learns to tell images apart."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from .. import __version__
from ..backends.registry import NAMES, current_name, use_backend
from ..data import Dataset, Loader, Normalize, Samples
from ..device import place
from ..errors import ArgumentError, FastdlError
from ..models import BUILDERS
from ..nn import CrossEntropyLoss, Layer
from ..threads import get_num_threads, set_num_threads
from ..train import (
    ActivationHistograms,
    Callback,
    EarlyStopping,
    GradientNorms,
    History,
    Progress,
    Run,
    TensorBoard,
    evaluate,
    fit,
    naive_images_per_second,
)
from . import sources
from .arguments import DEVICE_HELP, whole
from .description import Description
from .optimizers import OPTIMIZERS, SCHEDULES, regularizer
from .settings import Settings, add_settings, from_arguments, from_history
from .status import INTERRUPTED

#: For the step on the naive loops. Its time is proportional to the images.
NAIVE_IMAGES = 2
#: What the histograms of activations are of.
INSPECTED_IMAGES = 100
EVALUATION_BATCH = 256

EPILOG = """\
examples:
  fastdl train
      the digits that come with scikit-learn, in some seconds
  fastdl train --data mnist:PATH
      handwritten digits; PATH holds train-images-idx3-ubyte.gz and its three companions
  fastdl train --data cifar10:PATH
      small photographs of ten kinds of things
  fastdl train --data folder:PATH --size 64x64 --epochs 40
      your own images, in one folder a class: PATH/cat/1.jpg, PATH/dog/1.jpg, ...
  fastdl train --resume
      go on with a run that was interrupted
  fastdl predict fastdl-run/model.safetensors IMAGE
      ask the trained model
"""


def add_parser(subparsers: Any) -> None:
    """Add ``train`` to the command's parser."""
    parser = subparsers.add_parser(
        "train",
        help="train a network on images, by default on handwritten digits",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(
            "Train a convolutional network. A part of the training images is set aside: the epoch\n"
            "of the lowest loss on it gives the model, which the test images then judge.\n\n"
            "DIR receives model.safetensors (the best model), last.safetensors (what --resume\n"
            "needs), history.json and learning-curve.png: an earlier run there is replaced, other\n"
            "files stay. Ctrl-C keeps the best model so far."
        ),
        epilog=EPILOG,
    )
    add_settings(parser)
    add = parser.add_argument_group("output").add_argument
    add("--output", default="./fastdl-run", metavar="DIR", help="default: %(default)s")
    add("--resume", action="store_true", help="go on with the interrupted run in DIR")
    add(
        "--inspect",
        action="store_true",
        help="also draw gradient-norms.png and activations.png, layer by layer",
    )
    add("--tensorboard", metavar="FOLDER", help="also log for TensorBoard there")
    add("--no-progress", action="store_true", help="no bar, only a line an epoch")
    machine = parser.add_argument_group("machine").add_argument
    machine(
        "--backend",
        choices=NAMES,
        help="default: the first that works here, with --resume that of the run",
    )
    machine("--device", default="cpu", metavar="NAME", help=DEVICE_HELP)
    machine("--threads", type=whole(1, 1024), metavar="N", help="default: one a processor")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train as ``args`` say; the exit status."""
    if args.threads is not None:
        set_num_threads(args.threads)
    place(args.device)  # an error before anything is read
    with use_backend(current_name(args.backend or _recorded_backend(args))):
        return _train(args)


def _recorded_backend(args: argparse.Namespace) -> str | None:
    """That of the run which goes on: another would round its sums otherwise."""
    record = Run(args.output).record
    if not (args.resume and record.exists()):
        return None
    name = History.load(record).settings.get("backend")
    return name if name in NAMES else None


def _train(args: argparse.Namespace) -> int:
    # Whatever can be wrong shows before the training: packages, the folder, the data.
    output = Run(args.output)
    settings = _resumed(output, args) if args.resume else from_arguments(args)
    callbacks = _callbacks(args, settings, output)
    if settings.path:
        print(f"reading {settings.path}", flush=True)
    dataset = sources.load(settings.data, settings.path, settings.size, settings.channels)
    normalize = sources.normalization(settings.recipe, dataset)
    train = Loader(
        dataset.train,
        settings.batch_size,
        transforms=sources.transforms(settings.augment, dataset),
        normalize=normalize,
        seed=settings.seed,
    )
    validation, test = (
        Loader(samples, EVALUATION_BATCH, shuffle=False, normalize=normalize)
        for samples in (dataset.validation, dataset.test)
    )
    model = _build(settings, dataset).to(args.device)
    if args.inspect:
        images = normalize(dataset.validation.x[:INSPECTED_IMAGES])
        callbacks.append(ActivationHistograms(images, output.folder / "activations.png"))
    output.metadata = Description.of(dataset, normalize).metadata(settings.model)
    output.settings = {
        "fastdl": __version__,
        "backend": current_name(),
        "device": args.device,
        "threads": get_num_threads(),
        **asdict(settings),
    }
    optimizer = OPTIMIZERS[settings.optimizer](
        lr=settings.lr,
        regularizer=regularizer(settings.l1, settings.l2),
        max_norm=settings.max_norm,
    )
    start = time.perf_counter()
    try:
        print(_opening(output, settings, dataset, args), flush=True)
        history = fit(
            model,
            optimizer,
            train,
            validation,
            epochs=settings.epochs,
            loss=CrossEntropyLoss(settings.label_smoothing),
            schedule=SCHEDULES[settings.schedule](settings.lr, settings.epochs * len(train)),
            callbacks=callbacks,
            resume=output.last if args.resume else None,
        )
        if not args.resume:
            history.results["training_seconds"] = time.perf_counter() - start
        _conclude(output, settings, model, test)
        if settings.data == sources.DIGITS and settings.model == settings.recipe.model:
            _compare(output, settings, dataset)
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


def _resumed(output: Run, args: argparse.Namespace) -> Settings:
    """The settings of the run in ``output``, if it can go on."""
    if not output.last.exists():
        raise ArgumentError(f"--resume: there is no run in {output.folder} to go on with")
    history = History.load(output.record)
    if history.finished:
        raise ArgumentError(
            f"--resume: the run in {output.folder} has come to its end, "
            f"with epoch {len(history.epochs)}"
        )
    return from_history(history.settings, args)


def _callbacks(args: argparse.Namespace, settings: Settings, output: Run) -> list[Callback]:
    callbacks: list[Callback] = [output, Progress(bar=not args.no_progress)]
    if settings.patience is not None:
        callbacks.append(EarlyStopping(settings.patience))
    if args.tensorboard is not None:
        callbacks.append(TensorBoard(args.tensorboard))
    if args.inspect:
        callbacks.append(GradientNorms(output.folder / "gradient-norms.png"))
    return callbacks


def _build(settings: Settings, dataset: Dataset) -> Layer:
    """The network, tried on one image: not every one takes images of every size."""
    shape = dataset.image_shape
    model = BUILDERS[settings.model](
        classes=len(dataset.classes), channels=shape[0], rng=settings.seed
    )
    try:
        model.predict(Normalize()(dataset.train.x[:1]))
    except FastdlError as error:
        raise ArgumentError(
            f"--model {settings.model} does not take images of "
            f"{' x '.join(map(str, shape))} (channels, height, width): {error}"
        ) from error
    return model


def _opening(output: Run, settings: Settings, dataset: Dataset, args: argparse.Namespace) -> str:
    train, validation, test = (len(samples.x) for samples in dataset.parts)
    classes = f", {len(dataset.classes)} classes"
    lines = [
        f"fastdl {__version__}: {_machine(args.device)}, threads {get_num_threads()}",
        f"{settings.data}: {train} images to train on, {validation} to choose the best epoch, "
        f"{test} to test{classes}",
        f"{settings.model}: {settings.epochs} epochs, batches of {settings.batch_size}, "
        f"{settings.optimizer} with lr {settings.lr:g} ({settings.schedule}), l1 {settings.l1:g}, "
        f"l2 {settings.l2:g}, label smoothing {settings.label_smoothing:g}, "
        f"augmentation {settings.augment}",
    ]
    if args.resume:
        lines.append(f"going on with the run in {output.folder}")
    elif output.replaces:
        lines.append(f"the earlier run in {output.folder} will be replaced")
    return "\n".join(lines)


def _machine(device: str) -> str:
    """What computes."""
    return f"backend {current_name()}" if device == "cpu" else f"device {device}"


def _conclude(output: Run, settings: Settings, model: Layer, test: Loader) -> None:
    """Judge the kept model by images that neither trained nor chose it."""
    history = output.history
    if len(history.epochs) < settings.epochs:
        print(f"stopped: no better epoch among the last {settings.patience}")
    output.restore_best(model)
    result, count = evaluate(model, test), len(test.samples.x)
    history.results |= {
        "test_accuracy": result.accuracy,
        "test_loss": result.loss,
        "test_images": count,
        "images_per_second": history.images_per_second,
    }
    print(
        f"test accuracy: {result.accuracy:.2%} ({round(result.accuracy * count)} of {count} "
        f"images, the model of epoch {history.best_epoch})\n"
        f"training speed: {history.images_per_second:.0f} images/s "
        f"(batch, forward, backward and update; median epoch)",
        flush=True,
    )
    if "training_seconds" in history.results:
        print(f"training took {history.results['training_seconds']:.1f} s, validation included")


def _compare(output: Run, settings: Settings, dataset: Dataset) -> None:
    """Say how much faster the training went than the naive loops would."""
    fast = output.history.images_per_second
    few = Samples(dataset.train.x[:NAIVE_IMAGES], dataset.train.y[:NAIVE_IMAGES])
    naive = naive_images_per_second(_build(settings, dataset), few)
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
    best = output.history.best
    if best is None:
        return "no epoch had ended, so nothing was written"
    return (
        f"the best model so far (epoch {best.number}, validation accuracy "
        f"{best.validation_accuracy:.2%}), history and picture are in {output.folder}; "
        f"`fastdl train --resume --output {output.folder}` goes on"
    )


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a second Ctrl-C not spoil the saving that the first one asked for."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
