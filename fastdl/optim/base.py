"""What every optimiser is: settings, what it remembers of each parameter, and the update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import is_
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..backends.table import OptimizerStep, Rule
from ..device import placed, to_host, where
from ..errors import ArgumentError, DTypeError, ShapeError
from ..functional.inputs import floats
from ..functional.optimizer import (
    check_parameters,
    gradients_of,
    norm,
    optimizer_step,
)
from .clipping import clipping_scale
from .regularizers import Elastic, Penalty, Regularizer, as_regularizer, soft_threshold
from .selection import Array
from .settings import not_negative, positive

#: A regulariser, or one for each group of parameters.
Regularization = Regularizer | Mapping[str, Regularizer] | None


class _Group(NamedTuple):
    """Parameters, by their places, that one call of the kernel can serve."""

    places: list[int]
    #: Whether their penalties are added to the gradients before the kernel is called.
    penalised: bool


class _Plan(NamedTuple):
    """What stays from update to update while the parameters are the same arrays."""

    names: list[str]
    arrays: list[Array]
    #: For each slot the state of each parameter.
    states: list[list[Array]]
    #: l1, l2 and decay of each parameter.
    penalties: NDArray[np.float64]
    #: The places and penalties that the kernel does not compute.
    general: list[tuple[int, Penalty]]
    #: The places and strengths of soft thresholds.
    thresholds: list[tuple[int, float]]
    groups: list[_Group]

    def serves(self, params: Mapping[str, Array]) -> bool:
        """Whether these are its arrays, all of which can be written to."""
        return (
            isinstance(params, Mapping)
            and self.names == list(params)
            and all(map(is_, self.arrays, params.values()))
            and all(array.flags.writeable for array in self.arrays)
        )


class Optimizer:
    """Changes named parameters, in place, against their gradients.

    What it remembers from update to update (velocities, averages, counts) is
    made when a name first appears.

    Attributes
    ----------
    lr : float
        The learning rate; may be set between updates.
    regularizer : Regularizer or None
        Its ``loss(params)`` is what the updates add to the loss.
    max_norm : float or None
        The common norm of all gradients is brought down to it.
    """

    #: The formula, one of `fastdl.backends.table`, and the names of the state that it keeps.
    rule: ClassVar[Rule]
    slots: ClassVar[tuple[str, ...]] = ()
    #: Whether the formula has the number of updates.
    counts: ClassVar[bool] = False

    def __init__(
        self, lr: float, regularizer: Regularization = None, max_norm: float | None = None
    ) -> None:
        self.lr = positive("lr", lr)
        self.regularizer = as_regularizer(regularizer)
        self.max_norm = None if max_norm is None else positive("max_norm", max_norm)
        self._state: dict[str, dict[str, Array]] = {slot: {} for slot in self.slots}
        self._steps: dict[str, int] = {}
        self._plan: _Plan | None = None

    @property
    def lr(self) -> float:
        """The learning rate: a finite number of at least 0."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = not_negative("lr", value)

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change every parameter, and what is remembered for its name, once.

        The gradient in the formula is ``scale * grad`` plus the regulariser's,
        where ``scale`` brings the norm of all gradients down to ``max_norm``.
        ``grads`` themselves are left as they are.

        Parameters
        ----------
        params : mapping of str to ndarray
            The arrays to change, float32 or float64, such as ``model.parameters()``.
        grads : mapping of str to array
            To each name of ``params`` an array of its shape and dtype; further
            names are ignored.

        Raises
        ------
        ArgumentError
            If a gradient is missing, or a parameter is read-only or shares memory
            with another. Nothing is changed then, nor below.
        ShapeError, DTypeError
            If a gradient's shape or dtype is not its parameter's, a parameter's
            dtype is not served, or a loaded state does not fit.
        """
        plan = self._plan if self._plan is not None and self._plan.serves(params) else None
        if plan is None:
            check_parameters(params)
        gradients = gradients_of(params, grads)
        if plan is None:
            plan = self._plan = self._planned(params)
        arrays = plan.arrays
        scale = 1.0 if self.max_norm is None else clipping_scale(norm(gradients), self.max_norm)
        for place, penalty in plan.general:
            gradients[place] = penalty.added_to(gradients[place], scale, arrays[place])
        for group in plan.groups:
            for count, places in self._by_count(plan.names, group.places):
                optimizer_step(
                    self._step(1.0 if group.penalised else scale, count),
                    _at(places, arrays),
                    _at(places, gradients),
                    [_at(places, state) for state in plan.states],
                    plan.penalties[places],
                )
        for place, strength in plan.thresholds:
            soft_threshold(arrays[place], self.lr * strength)
        if self.counts:
            for name in params:
                self._steps[name] = self._steps.get(name, 0) + 1

    def state_dict(self) -> dict[str, Array]:
        """What is remembered, such as ``"mean/0.weight"``, as NumPy arrays.

        They are the arrays themselves, not copies, except of those on a GPU.
        The settings (lr, betas, ...) are no part of it.
        """
        state = {
            f"{slot}/{name}": to_host(array)
            for slot, arrays in self._state.items()
            for name, array in arrays.items()
        }
        counts = {f"steps/{name}": np.array(count) for name, count in self._steps.items()}
        return state | counts

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from ``state``, a copy of which takes the place of all that was remembered.

        With the same settings, the updates that follow give the same bits as
        those of the optimiser that it came from.

        Raises
        ------
        ArgumentError
            If a name is no state of this optimiser, or a parameter's state is
            not whole. Nothing is changed then, nor below.
        DTypeError
            If an array is neither float32 nor float64, or a count no integer.
        """
        kinds = (*self.slots, "steps") if self.counts else self.slots
        found: dict[str, dict[str, Array]] = {kind: {} for kind in kinds}
        for key, array in state.items():
            kind, _, name = key.partition("/")
            if kind not in found or not name:
                raise ArgumentError(
                    f"state has {key!r}, which is no state of {type(self).__name__}: "
                    f"it keeps {', '.join(f'{kind}/NAME' for kind in kinds) or 'nothing'}"
                )
            found[kind][name] = _checked(key, array, is_count=kind == "steps")
        for kind, arrays in found.items():
            for other, others in found.items():
                lacking = sorted(others.keys() - arrays.keys())
                if lacking:
                    name = lacking[0]
                    raise ArgumentError(
                        f"state lacks {f'{kind}/{name}'!r} to {f'{other}/{name}'!r}"
                    )
        self._steps = {name: int(count) for name, count in found.pop("steps", {}).items()}
        self._state = {
            slot: {name: np.array(array, order="C") for name, array in arrays.items()}
            for slot, arrays in found.items()
        }
        self._plan = None

    def _numbers(self) -> dict[str, float]:
        """What the formula needs besides lr: fields of `OptimizerStep`."""
        return {}

    def _decay(self, name: str, param: Array) -> float:
        """What ``param`` loses beside its gradient: ``lr * decay * w``."""
        return 0.0

    def _step(self, grad_scale: float, count: int) -> OptimizerStep:
        return OptimizerStep(
            self.rule, self.lr, **self._numbers(), grad_scale=grad_scale, step=count
        )

    def _by_count(self, names: Sequence[str], places: list[int]) -> Iterator[tuple[int, list[int]]]:
        """``places`` by the number of this update, for each parameter its own."""
        if not self.counts:
            yield 1, places
            return
        found: dict[int, list[int]] = {}
        for place in places:
            found.setdefault(self._steps.get(names[place], 0) + 1, []).append(place)
        yield from found.items()

    def _planned(self, params: Mapping[str, Array]) -> _Plan:
        for slot in self.slots:
            for name, param in params.items():
                _check_fits(f"{slot}/{name}", self._state[slot].get(name), param)
        penalties = np.zeros((len(params), 3))
        general: list[tuple[int, Penalty]] = []
        thresholds = []
        for place, (name, param) in enumerate(params.items()):
            penalty = self.regularizer.of(name, param) if self.regularizer else None
            if isinstance(penalty, Elastic):
                penalties[place, 1] = penalty.l2
                if penalty.proximal:
                    thresholds.append((place, penalty.l1))
                else:
                    penalties[place, 0] = penalty.l1
            elif penalty is not None:
                general.append((place, penalty))
            penalties[place, 2] = self._decay(name, param)
        separate = {place for place, _ in general}
        groups: dict[tuple[np.dtype[np.generic], bool], list[int]] = {}
        for place, param in enumerate(params.values()):
            groups.setdefault((param.dtype, place in separate), []).append(place)
        return _Plan(
            names=list(params),
            arrays=list(params.values()),
            states=[_filled(self._state[slot], params) for slot in self.slots],
            penalties=penalties,
            general=general,
            thresholds=thresholds,
            groups=[_Group(places, penalised) for (_, penalised), places in groups.items()],
        )


def _at(places: list[int], items: Sequence[Array]) -> list[Array]:
    return [items[place] for place in places]


def _filled(state: dict[str, Array], params: Mapping[str, Array]) -> list[Array]:
    """The state of each of ``params``, where that is: zeros where it had none."""
    for name, param in params.items():
        if name not in state:
            state[name] = np.zeros(param.shape, param.dtype)
        if where(state[name]) != where(param):
            state[name] = placed(state[name], where(param))
    return [state[name] for name in params]


def _checked(key: str, array: Array, is_count: bool) -> Array:
    if not is_count:
        return floats(f"state[{key!r}]", array)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.shape != ():
        raise DTypeError(f"state[{key!r}] must be an array of one integer, got {array!r:.60}")
    return array


def _check_fits(key: str, state: Array | None, param: Array) -> None:
    if state is None:
        return
    if state.shape != param.shape:
        raise ShapeError(
            f"the optimiser's {key} is {state.shape}, but the parameter is {param.shape}"
        )
    if state.dtype != param.dtype:
        raise DTypeError(
            f"the optimiser's {key} is {state.dtype}, but the parameter is {param.dtype}"
        )
