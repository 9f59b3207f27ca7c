"""What works on each element or on each row."""


def test_relu(row, timed):
    timed(row)


def test_relu_backward(row, timed):
    timed(row)


def test_sigmoid(row, timed):
    timed(row)


def test_softmax(row, timed):
    timed(row)
