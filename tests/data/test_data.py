import sys

import numpy as np
import pytest

import fastdl
from fastdl.data import load_digits, stratified_split


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    return load_digits()


def test_digits_are_small_floats(digits):
    for x, y in digits.parts:
        assert x.shape == (len(y), 1, 8, 8)
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert x.min() == 0
        assert x.max() == 1
        assert x.flags.c_contiguous
    assert digits.image_shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")


def test_digits_parts_are_disjoint_and_whole(digits):
    from sklearn.datasets import load_digits as original

    everything = np.concatenate([x.reshape(len(x), 64) for x, _ in digits.parts])
    source = original().data
    assert len(everything) == len(source) == 1797
    np.testing.assert_array_equal(np.unique(everything * 16, axis=0), np.unique(source, axis=0))
    labels = np.concatenate([y for _, y in digits.parts])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(original().target))


def test_digits_labels_belong_to_their_images(digits):
    from sklearn.datasets import load_digits as original

    bunch = original()
    label_of = {row.tobytes(): label for row, label in zip(bunch.data, bunch.target, strict=True)}
    for x, y in digits.parts:
        rows = (x.reshape(len(x), 64) * 16).astype(np.float64)
        assert [label_of[row.tobytes()] for row in rows] == y.tolist()


def test_digits_split_is_stratified_and_fixed(digits):
    test, whole = digits.test.y, np.concatenate([y for _, y in digits.parts])
    np.testing.assert_allclose(np.bincount(test), np.bincount(whole) * 0.2, atol=0.5)
    rest = np.bincount(whole) - np.bincount(test)
    np.testing.assert_allclose(np.bincount(digits.validation.y), rest * 0.1, atol=0.5)
    np.testing.assert_array_equal(load_digits().test.x, digits.test.x)
    other = load_digits(seed=1).test.x
    assert other.shape != digits.test.x.shape or (other != digits.test.x).any()


def test_digits_need_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(fastdl.MissingPackageError, match="pip install scikit-learn"):
        load_digits()


def test_split_covers_every_sample_once():
    labels = np.random.default_rng(0).integers(0, 5, 203)
    kept, aside = stratified_split(labels, 0.3, seed=2)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, aside])), np.arange(203))
    np.testing.assert_allclose(np.bincount(labels[aside]), np.bincount(labels) * 0.3, atol=0.5)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_split_fraction(fraction):
    with pytest.raises(fastdl.ArgumentError, match="fraction must be above 0 and below 1, got"):
        stratified_split(np.zeros(4), fraction, 0)


def test_split_leaves_one_of_a_small_class_on_each_side():
    labels = np.array([0, 0, 1, 1, 1, 2])
    kept, aside = stratified_split(labels, 0.1, seed=0)
    assert labels[aside].tolist() == [0, 1]
    assert set(labels[kept]) == {0, 1, 2}
