"""Where the time of a fit goes: each part's own CPU time, without that of the parts it calls."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import process_time
from unittest.mock import patch

WHOLE = ("validation", "fit of the mixture", "fit of the gate", "fit of the dropout curve")
"""Parts whose own parts are not told apart."""


class Timers:
    """CPU seconds and calls by part; nested parts are taken out of the one around them.

    CPU time, since it is the same on a busy machine; with one thread it is the time on the wall of an idle one.
    """

    def __init__(self):
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.calls: dict[tuple[str, str], int] = defaultdict(int)
        self.phase = "rest"
        self._stack: list[str] = []
        self._since = process_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        if self._stack and self._stack[-1] in WHOLE:
            yield
            return
        self._switch()
        self._stack.append(name)
        self.calls[self.phase, name] += 1
        try:
            yield
        finally:
            self._switch()
            self._stack.pop()

    def _switch(self) -> None:
        now = process_time()
        if self._stack:
            self.seconds[self.phase, self._stack[-1]] += now - self._since
        self._since = now

    def timed(self, name: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        return wrapped

    def timed_iterator(self, name: str, function: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            iterator = function(*args, **kwargs)
            while True:
                with self.part(name):
                    try:
                        item = next(iterator)
                    except StopIteration:
                        return
                yield item

        return wrapped


@contextmanager
def timed_training(timers: Timers) -> Iterator[None]:
    """Time the parts of our training inside."""
    from lightning.pytorch.core.optimizer import LightningOptimizer
    from scvi.train import TrainRunner

    from scgacl_scvi.model import SCGACL
    from scgacl_scvi.module import VaDE
    from scgacl_scvi.module._networks import Discriminator, Encoder, FirstLayer, Generator
    from scgacl_scvi.train import _plan
    from scgacl_scvi.train._callbacks import RestoreBest
    from scgacl_scvi.train._loader import CellLoader

    plan = _plan.SCGACLTrainingPlan
    methods = [
        (Encoder, "forward", "networks, forward"),
        (Generator, "forward", "networks, forward"),
        (Discriminator, "forward", "networks, forward"),
        (Discriminator, "judge_both", "networks, forward"),
        (FirstLayer, "slope", "backward"),
        (VaDE, "encode", "profile and sampling"),
        (VaDE, "generative", "profile and sampling"),
        (VaDE, "reconstruction_loss", "likelihood"),
        (VaDE, "kl", "prior"),
        (_plan, "adversarial_loss", "adversarial, contrasts"),
        (_plan, "discriminator_loss", "adversarial, contrasts"),
        (plan, "_contrasts", "adversarial, contrasts"),
        (plan, "manual_backward", "backward"),
        (_plan, "clip_gradients", "clipping"),
        (LightningOptimizer, "step", "optimiser"),
        (plan, "training_step", "step, rest"),
        (plan, "validation_step", "validation"),
        (plan, "_log_epoch", "logging"),
        (plan, "_start_prior", "fit of the mixture"),
        (RestoreBest, "on_validation_end", "keeping the best weights"),
        (SCGACL, "_fit_dropout", "fit of the dropout curve"),
        (TrainRunner, "__call__", "Lightning"),
    ]
    begin = plan.on_train_epoch_start

    def enter(self):
        begin(self)
        timers.phase = str(self._phase)

    with ExitStack() as stack:
        for owner, name, part in methods:
            stack.enter_context(patch.object(owner, name, timers.timed(part, getattr(owner, name))))
        loader = timers.timed_iterator("loader", CellLoader.__iter__)
        stack.enter_context(patch.object(CellLoader, "__iter__", loader))
        stack.enter_context(patch.object(plan, "on_train_epoch_start", enter))
        stack.enter_context(patch("scgacl_scvi.model._training.fit_gate", _after(timers)))
        yield


def _after(timers: Timers) -> Callable:
    from scgacl_scvi.train._gate_fit import fit_gate

    def fit(*args):
        timers.phase = "after"
        with timers.part("fit of the gate"):
            fit_gate(*args)

    return fit
