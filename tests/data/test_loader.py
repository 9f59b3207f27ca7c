"""Batches: every sample once, the same ones for the same seed, in the same memory."""

import threading
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import fastdl
from fastdl.data import HorizontalFlip, Loader, Normalize, RandomCrop, Samples, Shift


def numbered(count, shape=(1, 2, 3)):
    """Images that show their number, which is their label."""
    y = np.arange(count)
    x = np.broadcast_to(y.reshape(-1, 1, 1, 1), (count, *shape)).astype(np.uint8)
    return Samples(x, y)


def taken(loader, epoch=1):
    batches = [(x.copy(), y) for x, y in loader.epoch(epoch)]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


@hypothesis.given(count=st.integers(1, 40), size=st.integers(1, 50), shuffle=st.booleans())
def test_every_sample_once_with_its_label(count, size, shuffle):
    loader = Loader(numbered(count), size, shuffle=shuffle)
    lengths = [len(x) for x, _ in loader]
    assert len(lengths) == len(loader)
    assert lengths[:-1] == [size] * (len(loader) - 1)
    x, y = taken(loader)
    assert x.dtype == np.float32
    assert sorted(y) == list(range(count))
    assert shuffle or y.tolist() == list(range(count))
    np.testing.assert_allclose(x[:, 0, 0, 0] * 255, y, rtol=1e-6)


def test_seed_and_epoch_make_the_batches():
    transforms = [RandomCrop(1), HorizontalFlip()]
    samples = Samples(
        np.random.default_rng(0).integers(0, 256, (50, 3, 5, 7), np.uint8), np.arange(50)
    )

    def epoch(number, seed=3, pause=0.0):
        parts = []
        for x, _ in Loader(samples, 8, transforms=transforms, seed=seed).epoch(number):
            parts.append(x.copy())
            time.sleep(pause)
        return np.concatenate(parts)

    first = epoch(1)
    np.testing.assert_array_equal(first, epoch(1, pause=0.002))
    assert (first != epoch(2)).any()
    assert (first != epoch(1, seed=4)).any()


def test_buffers_serve_again():
    loader = Loader(numbered(64), 4)
    addresses = {x.ctypes.data for epoch in (1, 2) for x, _ in loader.epoch(epoch)}
    assert len(addresses) == 3
    # Two at a time do not share them.
    for (x, y), (other, others) in zip(loader.epoch(1), loader.epoch(2), strict=True):
        assert not np.shares_memory(x, other)
        np.testing.assert_allclose(x[:, 0, 0, 0] * 255, y, rtol=1e-6)
        np.testing.assert_allclose(other[:, 0, 0, 0] * 255, others, rtol=1e-6)


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    epoch = Loader(numbered(64), 4).epoch(1)
    next(epoch)
    epoch.close()
    assert threading.active_count() == before


def test_an_error_in_the_thread_reaches_the_training():
    loader = Loader(numbered(8), 4, transforms=[RandomCrop(size=(9, 9))])
    with pytest.raises(fastdl.ShapeError, match=r"size must be at most \(2, 3\), got \(9, 9\)"):
        list(loader)


def test_bad_loaders():
    x = np.zeros((3, 1, 2, 2), np.uint8)
    with pytest.raises(fastdl.ArgumentError, match="batch_size must be at least 1, got 0"):
        Loader(Samples(x, np.zeros(3)), 0)
    with pytest.raises(fastdl.ShapeError, match="x and y must be equally long, got 3 and 2"):
        Loader(Samples(x, np.zeros(2)))
    with pytest.raises(fastdl.ArgumentError, match="at least one sample"):
        Loader(Samples(x[:0], np.zeros(0)))
    with pytest.raises(fastdl.DTypeError, match="x must be uint8 or of floats, got int16"):
        Loader(Samples(x.astype(np.int16), np.zeros(3)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_normalize(dtype):
    pixels = np.random.default_rng(1).integers(0, 256, (9, 3, 4, 5), np.uint8)
    x = pixels if dtype == np.uint8 else (pixels / 255).astype(dtype)
    normalize = Normalize.of(Samples(x, np.zeros(9)))
    np.testing.assert_allclose(normalize.mean, (pixels / 255).mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(normalize.std, (pixels / 255).std((0, 2, 3)), rtol=1e-6)
    out = normalize(x)
    assert out.dtype == (np.float64 if dtype == np.float64 else np.float32)
    mean, std = (np.reshape(v, (3, 1, 1)) for v in (normalize.mean, normalize.std))
    np.testing.assert_allclose(out, (pixels / 255 - mean) / std, rtol=1e-4, atol=1e-6)


def test_normalize_of_one_value():
    assert Normalize.of(numbered(1)).std == (1.0,)


@pytest.mark.parametrize(("mean", "std"), [([0], [0]), ([np.nan], [1]), ([0, 0], [1]), ([], [])])
def test_bad_normalize(mean, std):
    with pytest.raises(fastdl.ArgumentError, match="mean and std must be equally many finite"):
        Normalize(mean, std)
    with pytest.raises(fastdl.ShapeError, match="x must have 2 channels"):
        Normalize([0, 0], [1, 1])(np.zeros((1, 3, 2, 2), np.uint8))


@hypothesis.given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    padding=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_a_crop_is_a_window_of_the_bordered_image(shape, padding, seed):
    x = np.random.default_rng(seed).integers(1, 256, shape, np.uint8)
    before = x.copy()
    out = RandomCrop(padding)(x, np.random.default_rng(seed))
    np.testing.assert_array_equal(x, before)
    assert out.shape == shape
    assert out.dtype == x.dtype
    border = ((0, 0), (padding, padding), (padding, padding))
    for image, cropped in zip(x, out, strict=True):
        bordered = np.pad(image, border)
        assert any(
            (bordered[:, top : top + shape[2], left : left + shape[3]] == cropped).all()
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        )


def test_a_shift_goes_everywhere():
    image = np.zeros((400, 1, 3, 3), np.uint8)
    image[:, :, 1, 1] = 1
    places = np.argwhere(Shift(1)(image, np.random.default_rng(0)))
    assert len(places) == 400
    assert len({tuple(place[2:]) for place in places}) == 9


def test_flips_are_of_whole_images():
    x = np.random.default_rng(0).integers(0, 256, (200, 3, 4, 5), np.uint8)
    out = HorizontalFlip(0.25)(x, np.random.default_rng(0))
    flipped = (out == x[..., ::-1]).all((1, 2, 3))
    assert (flipped | (out == x).all((1, 2, 3))).all()
    assert 30 < flipped.sum() < 70
    with pytest.raises(fastdl.ArgumentError, match="p must be a probability, 0 to 1, got 2"):
        HorizontalFlip(2)
