"""Batch normalisation: by given statistics, by the batch's own, and backward."""


def test_batch_norm(row, timed):
    timed(row)


def test_batch_norm_train(row, timed):
    timed(row)


def test_batch_norm_backward(row, timed):
    timed(row)
