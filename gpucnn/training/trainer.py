"""The training loop: epochs of mini-batches (L22).

What happens in one step is ``Trainer.train_step``; the epochs are a generator, so the loop is the caller's:

    for report in trainer.fit(train, test, epochs=20):
        print(report)
        if report.test_accuracy > 0.99:
            break
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from time import perf_counter
from typing import Any

from gpucnn.backend import REFERENCE, Backend
from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.errors import NotANumberError
from gpucnn.inference.evaluate import Evaluation, evaluate
from gpucnn.layers import Layer
from gpucnn.layers.whitening import whiten
from gpucnn.losses import softmax_cross_entropy
from gpucnn.metrics import RunningMetrics
from gpucnn.optim.averages import Average, averaged
from gpucnn.optim.loss_scale import SMALLEST
from gpucnn.optim.optimizer import Optimizer, clip_by_norm
from gpucnn.optim.schedules import Schedule, constant
from gpucnn.random import Clock
from gpucnn.training.cuda_graph import recorded
from gpucnn.training.nonfinite import explain_not_finite
from gpucnn.training.precision import FIRST, FLOAT32, Policy
from gpucnn.training.step_inputs import Pace
from gpucnn.types import Array


@dataclass(frozen=True)
class EpochReport:
    """What an epoch came to.  Losses are means per image, accuracies shares, epochs count from 1.

    ``seconds`` is the wall time of the epoch with its evaluation; ``images_per_second`` is of training alone.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch:3d}   train loss {self.train_loss:.4f} accuracy {self.train_accuracy:.4f}   "
            f"test loss {self.test_loss:.4f} accuracy {self.test_accuracy:.4f}   "
            f"{self.seconds:.1f} s, {self.images_per_second:,.0f} images/s"
        )


@dataclass(frozen=True)
class IntervalReport:
    """How the running epoch goes: batches done of all, mean loss and accuracy so far."""

    epoch: int
    batch: int
    batches: int
    loss: float
    accuracy: float
    images_per_second: float


@dataclass
class Progress:
    """How far training has come: all that a resumed run needs besides weights and optimiser state."""

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches done of the epoch under way, and its sums so far:
    loss_sum: float = 0.0
    correct: int = 0
    examples: int = 0
    step: int = 0
    loss_scale: float = FIRST  # of mixed precision, and finite gradients in a row since it was set:
    good_steps: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per epoch, without timings


class Trainer:
    """Trains a model on one backend.

    Args:
        model: any Layer whose output is logits (N, K).
        optimizer: its learning rate is used where no schedule is given.
        backend: where everything runs.
        batch_size: images per step.
        schedule: step -> learning rate.
        loss: (logits, labels, **loss_options) -> (value, dlogits), run on the backend.
        reduction: "mean" or "sum": what the gradient is of, the mean of a batch's losses or their sum, which is
            larger by the number of images (and wants a rate that is smaller by it).  Reported losses stay means.
        clip_grad: largest norm of the gradient; 0 does not clip.
        policy: what is computed in float16; nothing where not given.
        averages: of the weights, taken after each step in this order.
        augmentation: what happens to training images; nothing where not given.
        drop_last: leave out the last batch of an epoch where it is a partial one.
        patience: epochs without a better test accuracy before ``fit`` ends early; 0 never.
        max_steps: the run ends with this step, be it in the middle of an epoch; 0 leaves it to the epochs.
        mean, std: per channel on a 0..1 scale; the training set's own where not given.
        seed: of weights, shuffles, dropout and augmentation.
        log_interval: steps between two readings of the running metrics (each waits for the device).
        cuda_graph: "auto", "on" or "off": whether a GPU is given a step's launches as one (``cuda_graph.py``).
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        *,
        backend: Backend = REFERENCE,
        batch_size: int = 128,
        schedule: Schedule | None = None,
        loss: Callable[..., tuple[Array, Array]] = softmax_cross_entropy,
        loss_options: dict[str, Any] | None = None,
        reduction: str = "mean",
        clip_grad: float = 0.0,
        policy: Policy = FLOAT32,
        averages: Sequence[Average] = (),
        augmentation: Augmentation | None = None,
        drop_last: bool = False,
        patience: int = 0,
        max_steps: int = 0,
        mean: tuple[float, ...] = (),
        std: tuple[float, ...] = (),
        seed: int = 0,
        log_interval: int = 50,
        cuda_graph: str = "auto",
    ) -> None:
        self.clock = Clock(seed)
        backend = backend.with_tf32(policy.tf32)
        self.model = model.initialize(seed, backend, clock=self.clock)
        model.skip_input_grad()
        self.optimizer, self.backend = optimizer, backend
        optimizer.bind(model.flat, backend)
        self.schedule = schedule or constant(optimizer.lr)
        self.loss, self.loss_options = loss, loss_options or {}
        self.reduction, self.clip_grad, self.augmentation = reduction, clip_grad, augmentation
        self.precision = policy.bind(backend, batch_size if reduction == "sum" else 1)
        self.averages = tuple(averages)
        for average in self.averages:
            average.bind(self.model)
        self.batch_size, self.drop_last, self.patience = batch_size, drop_last, patience
        self.max_steps = max_steps
        self.mean, self.std = mean, std
        self.log_interval = log_interval
        self.metrics = RunningMetrics(backend)
        self.progress = Progress()
        self.stop_requested = False
        self.cuda_graph = cuda_graph
        self.compute = recorded(self.descend, backend, self.clock, cuda_graph)

    def train_step(self, x: Array, labels: Array) -> None:
        """One step of gradient descent on one mini-batch: x (B,H,W,C) normalised, labels (B,) or rows (B,K)."""
        self.compute(x, labels, self.pace(self.clock.step))  # descend, or its CUDA graph
        self.metrics.examples += len(labels)
        self.clock.step += 1

    def descend(self, x: Array, labels: Array, pace: Pace) -> None:
        """Gradients, then everything that follows from them: all that a step does on the device."""
        loss = self.gradients(x, labels)
        self.guard(loss, x, labels)
        if self.clip_grad:
            self.backend.run(clip_by_norm, self.model.flat.grad, self.clip_grad)
        self.precision.update(self.optimizer, pace.rates, pace.step)
        for average, turn in zip(self.averages, pace.turns, strict=True):
            average.take(turn)

    def gradients(self, x: Array, labels: Array) -> Array:
        """Forward, loss and backward: assigns all gradients, adds to the running metrics, returns the loss ()."""
        logits = self.precision.forward(self.model, x)
        loss, dlogits = self.backend.run(self.loss, logits, labels, **self.loss_options)
        self.precision.backward(self.model, dlogits * len(labels) if self.reduction == "sum" else dlogits)
        self.metrics.add(loss, logits, labels)
        return loss

    def pace(self, step: int) -> Pace:
        """The numbers of a step, counted from 0."""
        rates = self.optimizer.rates(self.schedule(step), step)
        heads = {group: rates[group] for group in self.optimizer.parts if group in rates}
        return Pace(step, heads, tuple(average.turn(step) for average in self.averages))

    def fit(
        self,
        train: Dataset,
        test: Dataset,
        *,
        epochs: int,
        watch: Callable[[IntervalReport], None] | None = None,
    ) -> Iterator[EpochReport]:
        """Train up to ``epochs`` epochs in all, from wherever ``progress`` stands; yields a report for each.

        Ends early by ``patience`` or ``max_steps``, or after the step during which ``stop_requested`` was set.
        """
        self.prepare(train)
        batches = self.loader(train, training=True)
        test_batches = self.loader(test, training=False)
        while self.progress.epoch < epochs and not self.ended() and not self.stop_requested:
            start = perf_counter()
            finished, rate = self.train_epoch(batches, watch)
            if not finished:
                return
            trained = self.metrics.read()  # sync
            tested = self.test(test_batches)
            seconds = perf_counter() - start
            yield self.close_epoch(trained, tested, seconds, rate)

    def prepare(self, train: Dataset) -> None:
        """What comes before the first step: statistics, shapes checked, filters that are made from images."""
        self.mean, self.std = self.mean or train.mean, self.std or train.std
        self.model.output_shape(train.image_shape)
        if self.clock.step == 0:
            whiten(self.model, train.images, self.mean, self.std)

    def train_epoch(self, batches: Loader, watch: Callable[[IntervalReport], None] | None = None) -> tuple[bool, float]:
        """The rest of the epoch under way -> (whether it was finished, images per second)."""
        progress = self.progress
        self.metrics.restart(progress.loss_sum, progress.correct, progress.examples)
        self.model.train()
        # by epochs, so that a run that is resumed within one computes what the other did
        if self.model.hold(self.optimizer.held(progress.epoch * len(batches))):
            self.compute = recorded(self.descend, self.backend, self.clock, self.cuda_graph)
        start, before = perf_counter(), progress.examples
        for x, labels in batches.epoch(progress.epoch, progress.batch):
            self.train_step(x, labels)
            progress.batch += 1
            finished = progress.batch == len(batches) or self.out_of_steps()
            due = progress.batch % self.log_interval == 0 or finished
            if due:
                loss, accuracy = self.metrics.read()  # sync
                self.guard_reading(loss, x, labels)
                if watch:
                    rate = (self.metrics.examples - before) / (perf_counter() - start)
                    watch(IntervalReport(progress.epoch + 1, progress.batch, len(batches), loss, accuracy, rate))
            if self.stop_requested or self.out_of_steps():
                break
        progress.loss_sum, progress.correct, progress.examples = self.metrics.sums()  # sync
        progress.step = self.clock.step
        progress.loss_scale, progress.good_steps = self.precision.state()  # sync
        rate = (self.metrics.examples - before) / max(perf_counter() - start, 1e-9)
        # more where a run goes on, by force, with larger batches
        return progress.batch >= len(batches) or self.out_of_steps(), rate

    def close_epoch(self, trained: tuple[float, float], tested: Evaluation, seconds: float, rate: float) -> EpochReport:
        """Count the epoch, remember the best one, and report."""
        progress = self.progress
        progress.epoch += 1
        progress.batch, progress.loss_sum, progress.correct, progress.examples = 0, 0.0, 0, 0
        report = EpochReport(
            progress.epoch,
            *trained,
            tested.loss,
            tested.accuracy,
            self.schedule(max(self.clock.step - 1, 0)),
            seconds,
            rate,
        )
        if report.test_accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.best_epoch = report.test_accuracy, report.epoch
        timings = ("seconds", "images_per_second")
        progress.history.append({k: v for k, v in asdict(report).items() if k not in timings})
        return report

    def ended(self) -> bool:
        """Whether there is nothing left to do, however many epochs were asked for."""
        return self.out_of_patience() or self.out_of_steps()

    def out_of_steps(self) -> bool:
        """Whether the last step that was allowed is done."""
        return 0 < self.max_steps <= self.clock.step

    def out_of_patience(self) -> bool:
        """Whether the last ``patience`` epochs brought no better test accuracy."""
        return 0 < self.patience <= self.progress.epoch - self.progress.best_epoch

    def evaluate(self, dataset: Dataset, tta: str = "none") -> Evaluation:
        """Loss, accuracy and predictions on a data set, in evaluation mode; ``tta`` as in ``evaluation.evaluate``."""
        self.mean, self.std = self.mean or dataset.mean, self.std or dataset.std
        return self.test(self.loader(dataset, training=False), tta)

    def test(self, batches: Loader, tta: str = "none") -> Evaluation:
        """The same on batches, with averaged weights where there are some for evaluation."""
        with averaged(self.averages):
            return evaluate(self.model, batches, self.loss, self.precision, tta)

    def loader(self, dataset: Dataset, *, training: bool) -> Loader:
        """Batches of a data set: shuffled and augmented in training, plain and in order otherwise."""
        return Loader(
            dataset,
            self.batch_size,
            backend=self.backend,
            mean=self.mean,
            std=self.std,
            seed=self.clock.seed,
            shuffle=training,
            drop_last=self.drop_last and training,
            augmentation=self.augmentation if training else None,
        )

    def guard(self, loss: Array, x: Array, labels: Array) -> None:
        """Stop before an update that is not a number; a device that runs ahead is asked at the next read."""
        if self.backend.synchronous:
            grad = self.model.flat.grad
            if not (isfinite(loss) and (self.precision.forgives or isfinite(grad @ grad))):
                raise self.not_a_number(x, labels, self.clock.step)

    def guard_reading(self, loss: float, x: Array, labels: Array) -> None:
        """The same for a mean loss that was read at an interval, and for a loss scale with nowhere to go."""
        if not isfinite(loss) or (self.precision.forgives and self.precision.state() == (SMALLEST, 0)):  # sync
            raise self.not_a_number(x, labels, self.clock.step - 1)

    def not_a_number(self, x: Array, labels: Array, step: int) -> NotANumberError:
        """The error that names the place, with the batch for whoever wants to look into it.  # sync"""
        to_host = self.backend.to_host
        return NotANumberError(
            explain_not_finite(self.model, self.precision.stored(x), step), (to_host(x), to_host(labels))
        )

    def restore(self, progress: Progress) -> None:
        """Go on from here; weights, buffers and optimiser state are loaded by the caller."""
        self.progress = progress
        self.clock.step = progress.step
        self.precision.restore(progress.loss_scale, progress.good_steps)
