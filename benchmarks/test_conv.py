"""Convolutions: forward, backward, and the columns of the textbook algorithm."""


def test_conv2d(row, timed):
    timed(row)


def test_conv2d_backward(row, timed):
    timed(row)


def test_im2col(row, timed):
    timed(row)


def test_col2im(row, timed):
    timed(row)
