"""Networks on a simulated GPU: the CPU's numbers, and no copy to the host but loss and metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import normal

import fastdl
from fastdl import data, models, nn, optim, train
from fastdl.backends import gpu
from fastdl.cli import main

if not gpu.simulated() or fastdl.available_backends()["cuda"] is not None:
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1 and numba-cuda", allow_module_level=True)

from fastdl.backends.cuda import launch, optimizer

X = normal((4, 2, 6, 6), np.float32, 1)
Y = np.array([0, 2, 1, 2])


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False, rng=0),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Residual(nn.Conv2d(3, 3, 1, rng=1), activation=nn.ReLU()),
        nn.LeakyReLU(0.1),
        nn.LocalResponseNorm(2, alpha=0.5),
        nn.ConvTranspose2d(3, 2, 2, rng=2),
        nn.Flatten(),
        nn.Dropout(0.25, rng=3),
        nn.Linear(32, 3, rng=4),
    )


def close(found: dict[str, Any], expected: dict[str, Any], rtol: float = 2e-5) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert type(array) is np.ndarray
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(array, expected[name], atol=rtol * scale + 1e-7, err_msg=name)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optim.Momentum(0.1, regularizer=optim.L2(1e-2), max_norm=0.5),
        lambda: optim.Adam(1e-2, regularizer=optim.L1(1e-3, proximal=True)),
        lambda: optim.SGD(1e-2, regularizer=optim.Lp(0.1, p=1.5), max_norm=0.5),
    ],
    ids=["momentum", "adam", "sgd"],
)
def test_training_steps_give_the_cpu_s_numbers(optimizer: Any, copies: list[int]) -> None:
    host, device = network(), network().to("cuda")
    assert (host.device, device.device) == (None, 0)
    rules = optimizer(), optimizer()
    for _ in range(2):
        expected = train.training_step(host, nn.CrossEntropyLoss(0.1), rules[0], X, Y)
        copies.clear()
        found = train.training_step(device, nn.CrossEntropyLoss(0.1), rules[1], X, Y)
        # The loss with its count of bad classes; how many are right; parts of the gradients' norm.
        assert copies[0 :: len(copies) - 1] == [2, 1]
        assert len(copies) == (3 if rules[0].max_norm else 2)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        assert found[1] == expected[1]
    close(device.state_dict(), host.state_dict())
    close(rules[1].state_dict(), rules[0].state_dict(), 1e-4)
    result = train.evaluate(device, data.Samples(X, Y))
    assert result.loss == pytest.approx(train.evaluate(host, data.Samples(X, Y)).loss, rel=1e-5)
    close({"": device.predict(X, 3)}, {"": host.predict(X)})
    close({"": device.to("cpu").predict(X)}, {"": host.predict(X)})
    assert device.device is None


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss("sum")])
def test_losses_of_elements(loss: nn.Loss) -> None:
    x, target = normal((5, 9), np.float32, 1), abs(normal((5, 9), np.float32, 2)) % 1
    expected = loss.forward(x, target), loss.backward()
    found = loss.forward(*map(fastdl.to_device, (x, target))), fastdl.to_host(loss.backward())
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    close({"": found[1]}, {"": expected[1]})


def test_a_run_goes_on_from_its_checkpoint(tmp_path: Any) -> None:
    """To the same bits, and its state is NumPy's: also on the CPU."""
    few = data.Samples(X, Y)
    states = []
    for parts in ((2,), (1, 2)):
        for number, epochs in enumerate(parts):
            model, rule = network().to("cuda"), optim.Adam(1e-2)
            run = train.Run(tmp_path)
            train.fit(
                model, rule, few, few, epochs=epochs, batch_size=2, callbacks=[run],
                resume=run.last if number else None,
            )  # fmt: skip
        states.append(model.state_dict())
    for name, array in states[0].items():
        np.testing.assert_array_equal(states[1][name], array)
    on_cpu = network()
    train.fit(on_cpu, optim.Adam(), few, epochs=2, resume=run.last)
    close(on_cpu.state_dict(), states[0], 0)


def test_gradients_are_clipped_in_place() -> None:
    values = np.float32([[3, -4], [0.5, np.nan]])
    for clip, expected in (
        (lambda grads: optim.clip_grad_value(grads, 1), [[1, -1], [0.5, np.nan]]),
        (
            lambda grads: optim.clip_grad_norm({"w": grads["w"][:1]}, 1),
            [[0.6, -0.8], [0.5, np.nan]],
        ),
    ):
        grads = {"w": fastdl.to_device(values)}
        clip(grads)
        np.testing.assert_allclose(fastdl.to_host(grads["w"]), np.float32(expected), rtol=1e-6)


def test_arrays_beside_the_layer_are_an_error() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, rng=0), nn.BatchNorm2d(3)).to("cuda")
    for mode in (True, False):
        model.train(mode)
        with pytest.raises(fastdl.DeviceError, match="x must be where weight of the layer is, on"):
            model(X)
        model(fastdl.to_device(X))
        with pytest.raises(fastdl.DeviceError, match="x must be where weight of the layer is, on"):
            model(X)
    model.to("cpu")
    with pytest.raises(fastdl.DeviceError, match="in the CPU's memory, got one on GPU 0"):
        model(fastdl.to_device(X))
    model.layers[0].params["weight"] = fastdl.to_device(model.layers[0].weight)
    with pytest.raises(fastdl.DeviceError, match="weight"):
        model(X)


def test_a_penalty_of_one_s_own_is_an_error() -> None:
    class Mine(optim.Lp):
        added_to = optim.Penalty.added_to

    layer = nn.Linear(2, 3, rng=0).to("cuda")
    layer.backward_params(layer.forward(fastdl.to_device(np.ones((4, 2), np.float32))))
    rule = optim.SGD(0.1, regularizer=Mine(0.1, p=3))
    with pytest.raises(fastdl.DeviceError, match="are L1, L2, Elastic and Lp, got Mine"):
        rule.update(layer.parameters(), layer.gradients())


def test_an_update_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all parameters, whatever their sizes; and nothing is copied where none has moved."""
    sizes = [(3,), (1500,), (2, 2), (513,), (4, 200)]
    host, grads = ({f"{i}": normal(size, np.float32, seed + i) for i, size in enumerate(sizes)}
                   for seed in (0, 9))  # fmt: skip
    device, moved = ({name: fastdl.to_device(each) for name, each in arrays_.items()}
                     for arrays_ in (host, grads))  # fmt: skip
    rules = [optim.AdamW(0.1, weight_decay=0.2, regularizer=optim.L2(0.3)) for _ in range(2)]
    launches: list[str] = []
    real = launch.Kernel.__call__
    monkeypatch.setattr(
        launch.Kernel, "__call__",
        lambda self, *rest: launches.append(self.factory.function.__name__) or real(self, *rest),
    )  # fmt: skip
    for step in range(2):
        if step:
            monkeypatch.setattr(optimizer, "to_device", lambda array, *_: array)
        rules[0].update(host, grads)
        rules[1].update(device, moved)
    assert launches == ["change", "change"]
    close({name: fastdl.to_host(each) for name, each in device.items()}, host)


def test_fastdl_train_as_typed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `fastdl predict` of what it wrote."""
    image = pytest.importorskip("PIL.Image")
    for number, name in enumerate("abcd" * 3):
        (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
        pixels = normal((6, 6), seed=number) * 50 + 99
        image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name / f"{number}.png")

    def tiny(classes: int = 4, channels: int = 1, rng: Any = None) -> nn.Sequential:
        layers = nn.Conv2d(channels, 4, 3, rng=rng), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(64, classes, rng=rng))

    monkeypatch.setitem(models.BUILDERS, "gap_net", tiny)
    told = ["--device", "cuda"]
    images, run = tmp_path / "images", tmp_path / "run"
    status = main(
        ["train", "--data", f"folder:{images}", "--size", "6x6", "--channels", "1", "--model",
         "gap_net", "--epochs", "1", "--no-progress", "--output", str(run), *told]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 0, err
    assert "device cuda" in out
    assert (
        main(["predict", str(run / "model.safetensors"), str(images / "a" / "0.png"), *told]) == 0
    )
    on_gpu = capsys.readouterr().out
    assert main(["predict", str(run / "model.safetensors"), str(images / "a" / "0.png")]) == 0
    assert capsys.readouterr().out == on_gpu


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:7"])
def test_a_place_that_is_none(name: str) -> None:
    with pytest.raises(fastdl.ArgumentError, match="device must be"):
        nn.ReLU().to(name)
