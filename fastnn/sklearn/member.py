"""One net of an estimator with the state of its training, which pickles whole."""

from typing import Any

from .. import _core
from ..history import History
from ..network import Sequential
from ..trainer import Trainer
from .progress import Progress

KEPT = ("optimizer", "_epoch", "_step", "_steps_per_epoch", "_shift", "lr_factor")


class Member:
    """A net, how far its training came, and the trainer that partial_fit goes on with.

    A pickle holds the net as a model file and, in the trainer's place, a checkpoint and the trainer's optimizer and
    counters, which `resume` gives to another when training goes on.
    """

    def __init__(self, net: Sequential) -> None:
        self.net, self.progress, self.history = net, Progress(), History()
        self.trainer: Trainer | None = None
        self._saved: tuple[bytes, dict[str, Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trainer": None, "_saved": self._state()}

    def _state(self) -> tuple[bytes, dict[str, Any]] | None:
        if self.trainer is None:
            return self._saved
        file = _core.save_model(self.net._engine, None, "checkpoint", {})
        return file, {name: getattr(self.trainer, name) for name in KEPT}

    @property
    def goes_on(self) -> bool:
        """Whether there is a state of training to go on from."""
        return self.trainer is not None or self._saved is not None

    def start(self, trainer: Trainer, learning_rate: float) -> None:
        """Take a new trainer, whose optimizer begins anew; shuffles and masks go on after those of earlier fits."""
        self.trainer, self.progress.learning_rate = trainer, learning_rate
        trainer._epoch = len(self.progress.loss_curve)
        self.net._engine.passes = self.progress.passes

    def resume(self, trainer: Trainer) -> None:
        """Give a new trainer of the net optimizer, moments and counters of the one before."""
        state = self._state() if self._saved is None else self._saved
        assert state is not None
        file, kept = state
        for name, value in kept.items():
            setattr(trainer, name, value)
        parameters = {name: view.copy() for name, view in self.net.parameters().items()}
        trainer._configure()
        self.net._engine.copy_state(_core.open_model(file)[0])
        self.net._load(parameters)  # they may have been assigned since
        self.trainer, self._saved = trainer, None
