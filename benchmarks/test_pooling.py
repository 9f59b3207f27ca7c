"""Pools, forward and backward."""


def test_max_pool2d(row, timed):
    timed(row)


def test_max_pool2d_backward(row, timed):
    timed(row)


def test_avg_pool2d(row, timed):
    timed(row)


def test_avg_pool2d_backward(row, timed):
    timed(row)


def test_global_avg_pool2d(row, timed):
    timed(row)


def test_global_avg_pool2d_backward(row, timed):
    timed(row)
