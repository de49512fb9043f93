"""The training loop: epochs of mini-batches (L22).

What happens in one step is ``Trainer.train_step``; the epochs are a generator, so the loop belongs to the caller:

    for report in trainer.fit(train, test, epochs=20):
        print(report)
        if report.test_accuracy > 0.99:
            break

``Trainer.train`` is that loop with one line per epoch, for those who need no other.
"""

from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from inspect import Parameter, signature
from math import isfinite, isnan, nan
from time import perf_counter
from typing import Any

import numpy as np

from gpucnn.backend import REFERENCE, Backend
from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.devices import get_backend
from gpucnn.devices.gpu_memory import images_limit
from gpucnn.errors import DataError, NotANumberError, ShapeError, UsageError, closest
from gpucnn.inference.evaluate import Evaluation, evaluate
from gpucnn.layers import Layer
from gpucnn.layers.base import TAKEN
from gpucnn.layers.whitening import whiten
from gpucnn.losses import CLASS_LOSSES, LOSSES, softmax_cross_entropy
from gpucnn.metrics import RunningMetrics
from gpucnn.optim import OPTIMIZERS
from gpucnn.optim.averages import Average, averaged
from gpucnn.optim.optimizer import Optimizer, clip_by_norm
from gpucnn.optim.schedules import Schedule, constant, schedule_named
from gpucnn.random import Clock
from gpucnn.settings import Checked, Settings, checked, in_short, named, setting
from gpucnn.terminal import say
from gpucnn.training.batch_check import check_batch
from gpucnn.training.cuda_graph import with_cuda_graph
from gpucnn.training.epochs import Epochs, OneThread, WholeSteps
from gpucnn.training.history import History
from gpucnn.training.nonfinite import REMEDY, explain_nonfinite
from gpucnn.training.precision import FLOAT32, POLICIES, Policy
from gpucnn.training.step_inputs import StepInputs
from gpucnn.types import Array, Shape


@dataclass(frozen=True)
class EpochReport:
    """The results of an epoch, counted from 1.  Losses are means over images, accuracies fractions.

    Those of the test set are NaN where there is none.  ``seconds`` is the wall time of the epoch and its evaluation;
    ``images_per_second`` counts training alone.
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
        test = f"test loss {self.test_loss:.4f} accuracy {self.test_accuracy:.4f}   "
        return (
            f"epoch {self.epoch:3d}   train loss {self.train_loss:.4f} accuracy {self.train_accuracy:.4f}   "
            f"{'' if isnan(self.test_accuracy) else test}"
            f"{self.seconds:.1f} s, {self.images_per_second:,.0f} images/s"
        )


@dataclass(frozen=True)
class IntervalReport:
    """The current epoch, counted from 1: batches done and in all, mean loss and accuracy so far over ``examples``.

    ``step`` counts the steps of the whole run, and ``learning_rate`` is that of the last one.
    """

    epoch: int
    batch: int
    batches: int
    loss: float
    accuracy: float
    images_per_second: float
    examples: int
    step: int
    learning_rate: float


@dataclass(frozen=True)
class TrainerOptions(Settings):
    """Settings of a ``Trainer`` that most programs leave alone.

    Attributes:
        loss_options: keyword arguments of the loss in training, as {"smoothing": 0.1}; evaluation leaves them out.
        reduction: "mean" or "sum": whether gradients are those of the mean or of the sum of a batch's losses.  A sum's
            are larger by the number of images and need a rate that is as much smaller.  Reported losses are means.
        clip_grad: largest Euclidean norm of the gradient; 0 does not clip.
        drop_last: leave out the last batch of an epoch if it is smaller than the others.
        patience: epochs without a better test accuracy before ``fit`` ends early; 0 never ends it.
        max_steps: training ends with this step, even within an epoch; 0 leaves the end to the epochs.
        mean, std: per channel, of bytes on a 0..1 scale, to normalise images; the training set's own if empty.
        data_memory: memory that images may take of a GPU, as "2" GiB or "25%"; half of what is free if empty.  Where
            they are more, batches are gathered on the host.
        log_interval: steps between two readings of the running metrics, each of which waits for the device.
        cuda_graph: "auto", "on" or "off": whether a GPU gets a step's launches as one (``cuda_graph.py``).
    """

    loss_options: Mapping[str, Any] = field(default_factory=dict)
    reduction: str = setting("mean", choices=("mean", "sum"))
    clip_grad: float = setting(0.0, at_least=0)
    drop_last: bool = False
    patience: int = setting(0, at_least=0)
    max_steps: int = setting(0, at_least=0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    data_memory: str = ""
    log_interval: int = setting(50, at_least=1)
    cuda_graph: str = "auto"


DEFAULTS = TrainerOptions()

LARGEST_RATE = 1e38  # float32 has no more

UNTESTED = Evaluation(nan, nan, np.empty(0, np.int64))


def optimizer_named(optimizer: Optimizer | str, lr: float | None) -> Optimizer:
    """An optimizer by its name, at this rate or its default one; an optimizer as it is.

    Raises:
        UsageError: no such name, a name whose optimizer has no default rate, or a rate for one that has its own.
    """
    if not isinstance(optimizer, str):
        if lr is not None:
            raise UsageError(f"lr={lr} beside an optimizer with lr={optimizer.lr}: give the rate to the optimizer")
        return optimizer
    if optimizer not in OPTIMIZERS:
        raise UsageError(f"optimizer = {optimizer!r}{closest(optimizer, OPTIMIZERS)}")
    kind: Callable[..., Optimizer] = OPTIMIZERS[optimizer]
    if lr is None and signature(kind).parameters["lr"].default is Parameter.empty:
        raise UsageError(f"optimizer = {optimizer!r} has no default rate: give lr, as in lr=0.05")
    return kind() if lr is None else kind(lr)


@dataclass
class Progress:
    """How many epochs and batches are done, and how good the model was.

    The step is the clock's, sums of the current epoch are the running metrics', the loss scale is the precision's.
    """

    epoch: int = 0  # epochs completed
    batch: int = 0  # batches done of the current epoch
    cut: int = 0  # batches done of the last epoch, where max_steps ended it early
    best_accuracy: float = -1.0
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per epoch, without timings

    def state_dict(self) -> dict[str, Any]:
        """All but the history, for a checkpoint."""
        return {name: value for name, value in vars(self).items() if name != "history"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``."""
        vars(self).update(state)

    def reopen(self) -> None:
        """Go on within the epoch that was cut: it counts when it is complete."""
        self.epoch, self.batch, self.cut = self.epoch - 1, self.cut, 0
        del self.history[-1:]
        tested = (row for row in self.history if not isnan(row["test_accuracy"]))
        best = max(tested, key=lambda row: row["test_accuracy"], default=None)
        self.best_accuracy, self.best_epoch = (best["test_accuracy"], int(best["epoch"])) if best else (-1.0, 0)


class Trainer(Checked):
    """Trains a model on a backend.

    Many arguments may be names: ``Trainer(model, "adam", backend="cpu", schedule="cosine")``.

    Args:
        model: a Layer whose output is logits (N,K).  Weights that it has, from ``initialize``, ``load_state_dict``,
            ``gpucnn.load`` or another trainer, are where training starts; all others are drawn by ``seed``.
            ``model.initialize(seed)`` draws all of them anew.
        optimizer: its learning rate is the rate of all steps if there is no schedule.  By name, one of
            ``optim.OPTIMIZERS`` with its defaults; "sgd" and "muon" have no default rate and need ``lr``.
        lr: the learning rate of an optimizer given by name.
        backend: where everything runs; by name, what ``get_backend`` knows.
        batch_size: images per step.
        schedule: step, counted from 0 -> learning rate.  By name, "cosine", "one_cycle" or "triangular" over the steps
            of the first ``fit``, or "constant".
        loss: (logits (N,K), labels (N,) or (N,K)) -> (mean loss (), dlogits (N,K)), run on the backend.  By name, one
            of ``losses.LOSSES``.
        policy: float32 or mixed precision; by name "off", "fp16" or "tf32".
        averages: of the weights, updated after each step in this order.
        augmentation: of training images.
        seed: of weights, shuffles, dropout and augmentation.
        options: everything else.

    Raises:
        UsageError: the backend does not have the policy's precision, or the CUDA graphs that the options ask for; an
            argument is of another type, a name is unknown, or the loss does not take its options.
        DeviceError: the GPU that ``backend`` names cannot be used.

    Attributes:
        mean, std: per channel on a 0..1 scale; those of the options, or of the training set once ``fit`` has seen it.
        image_shape: (H,W,C) of the training images; None before.
        classes: their names.
            trained_on, pixels: the name of the training set, and the dtype of its images.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer | str,
        *,
        lr: float | None = None,
        backend: Backend | str = REFERENCE,
        batch_size: int = 128,
        schedule: Schedule | str | None = None,
        loss: Callable[..., tuple[Array, Array]] | str = softmax_cross_entropy,
        policy: Policy | str = FLOAT32,
        averages: Sequence[Average] = (),
        augmentation: Augmentation | None = None,
        seed: int = 0,
        options: TrainerOptions = DEFAULTS,
    ) -> None:
        loss, policy = named("loss", loss, LOSSES), named("policy", policy, POLICIES)
        optimizer = optimizer_named(optimizer, lr)
        backend = get_backend(backend) if isinstance(backend, str) else backend
        try:
            signature(loss).bind(None, None, **options.loss_options)
        except TypeError as error:
            raise UsageError(f"the loss {in_short(loss)} with loss_options {options.loss_options}: {error}") from None
        self.clock = Clock(seed)
        backend = backend.with_tf32(policy.tf32)
        self.kept = set(model.filled())  # parameters and buffers that had values
        self.model = model.initialize(seed, backend, clock=self.clock, keep=True)
        model.skip_input_grad()
        self.optimizer, self.backend, self.options = optimizer, backend, options
        self.flat = model.flat
        optimizer.bind(self.flat, backend)
        self.schedule_name = schedule if isinstance(schedule, str) else ""
        if isinstance(schedule, str):  # ``fit`` knows the number of steps
            schedule = schedule_named(schedule, optimizer.lr, 1)
        self.schedule = schedule or constant(optimizer.lr)
        self.loss, self.batch_size, self.augmentation = loss, batch_size, augmentation
        self.policy = policy
        self.precision = policy.bind(backend, batch_size if options.reduction == "sum" else 1)
        self.averages = tuple(averages)
        for average in self.averages:
            average.bind(model)
        self.mean, self.std = options.mean, options.std
        self.image_shape: Shape | None = None
        self.classes: tuple[str, ...] = ()
        self.trained_on, self.pixels = "", "uint8"
        self.metrics = RunningMetrics(backend)
        self.progress = Progress()
        self.stop_requested = False
        self.one_thread, self.whole_steps = OneThread(), WholeSteps()
        self.accepted: Hashable = None  # the kind of the last batch
        self.compute = with_cuda_graph(self.descend, backend, self.clock, options.cuda_graph)

    def _repr_html_(self) -> str:
        """How far training is, its curves, and the model's table, for notebooks."""
        done, history = self.progress, self.progress.history
        best = f", best test accuracy {done.best_accuracy:.4f} after epoch {done.best_epoch}" if done.best_epoch else ""
        kind = type(self.optimizer).__name__
        about = f"{kind} on {self.backend.name}: epoch {done.epoch}, step {self.clock.step}{best}"
        curves = History(history).svg() if history else ""
        return f"<p>{about}</p>{curves}{self.model._repr_html_()}"

    @checked
    def start_from(self, state: Mapping[str, Any]) -> dict[str, str]:
        """Fine-tuning: before the first step, take what fits of another model's ``state_dict``.

        Returns:
            Name of each parameter and buffer -> whether it was taken, as ``Layer.load_matching`` says.

        Raises:
            UsageError: nothing fits, or training has begun.
        """
        if self.clock.step:
            raise UsageError(f"start_from after {self.clock.step} steps: call it before the first one")
        report = self.model.load_matching(state)
        taken = {name for name, reason in report.items() if reason == TAKEN}
        if not taken:
            first = f"the model has {next(iter(report), None)!r}, the state {next(iter(state), None)!r}"
            raise UsageError(f"start_from: nothing fits by name and shape: {first}")
        self.kept |= taken
        for average in self.averages:
            average.bind(self.model)
        return report

    def train_step(self, x: Array, labels: Array) -> None:
        """One step of gradient descent on one mini-batch: x (B,H,W,C) normalised, labels (B,) or rows (B,K)."""
        with self.one_thread:
            self.check_batch(x, labels)
            self.compute(x, labels, self.step_inputs(self.clock.step))  # descend, or its CUDA graph
            self.metrics.examples += len(labels)
            self.clock.step += 1

    def check_batch(self, x: Array, labels: Array) -> None:
        """Refuse what a step cannot take; a batch like the one before is not looked at again."""
        kind = type(x), type(labels), self.model.training, getattr(x, "dtype", None), getattr(x, "shape", ())
        if kind != self.accepted:
            check_batch(self.model, self.backend, x, labels)
            self.accepted = kind

    def descend(self, x: Array, labels: Array, inputs: StepInputs) -> None:
        """All that a step does on the device: gradients, then the weights and their averages."""
        loss = self.gradients(x, labels)
        self.check_finite(loss, x, labels)
        if self.options.clip_grad:
            self.backend.run(clip_by_norm, self.model.flat.grad, self.options.clip_grad)
        self.precision.update(self.optimizer, inputs.learning_rates, inputs.step)
        for average, update in zip(self.averages, inputs.average_updates, strict=True):
            average.apply(update)

    def gradients(self, x: Array, labels: Array) -> Array:
        """Forward, loss and backward: assigns all gradients, adds to the running metrics, returns the mean loss ()."""
        logits = self.precision.forward(self.model, x)
        loss, dlogits = self.backend.run(self.loss, logits, labels, **self.options.loss_options)
        self.precision.backward(self.model, dlogits * len(labels) if self.options.reduction == "sum" else dlogits)
        self.metrics.add(loss, logits, labels)
        return loss

    def step_inputs(self, step: int) -> StepInputs:
        """The numbers of a step, counted from 0."""
        rates = self.optimizer.rates(self.schedule(step), step)
        used = {group: rates[group] for group in self.optimizer.parts if group in rates}
        if not max(used.values(), default=0.0) <= LARGEST_RATE:
            raise NotANumberError(f"the learning rate of step {step} is {max(used.values()):g}; {REMEDY}")
        return StepInputs(step, used, tuple(average.update_at(step) for average in self.averages))

    @property
    def history(self) -> History:
        """One row per epoch that is done."""
        return History(self.progress.history)

    @checked
    def train(
        self,
        train: Dataset,
        test: Dataset | None = None,
        *,
        epochs: int,
        quiet: bool = False,
        watch: Callable[[IntervalReport], None] | None = None,
    ) -> History:
        """``fit`` to its end: prints a line per epoch, unless ``quiet``, and returns the history of all epochs.

        As in ``fit``, ``epochs`` counts those that are done already: ``train(..., epochs=5)`` after
        ``train(..., epochs=3)`` trains two more.
        """
        for report in self.fit(train, test, epochs=epochs, watch=watch):
            if not quiet:
                say(str(report))
        return self.history

    @checked
    def fit(
        self,
        train: Dataset,
        test: Dataset | None = None,
        *,
        epochs: int,
        watch: Callable[[IntervalReport], None] | None = None,
    ) -> Epochs[EpochReport]:
        """Train until ``epochs`` epochs are done in all, those in ``progress`` included; yields a report for each.

        An epoch is trained when its report is asked for; without an iteration nothing is, and a RuntimeWarning says
        so.  Ctrl-C ends it after a whole step, and the next ``fit`` goes on from there with the same results as if
        nothing had happened.

        Ends early by ``patience`` or ``max_steps``, or after the step during which ``stop_requested`` was set.  The
        training set gives mean and std if the options do not.  An epoch that ``max_steps`` ended goes on where more
        steps are allowed now.

        Args:
            train: what it learns.
            test: what every epoch is tested on; None tests nothing, and its numbers in the reports are NaN.
            epochs: in all, counted from the trainer's first.
            watch: called every ``options.log_interval`` steps.

        Raises:
            UsageError: another thread trains or evaluates with this trainer, its model or optimizer now belongs to
                another one, or a second Ctrl-C has left a step half done.
            ShapeError: the images do not fit the model, or its outputs the classes.
            NotANumberError: NaN or infinity, before an update by it; on a GPU, at the next reading of the metrics.
                Also if the test loss is not finite: such an epoch is not counted.
        """
        if epochs < 0:
            raise UsageError(f"epochs = {epochs}: give at least 0")
        if test is None and self.options.patience:
            raise UsageError(f"patience = {self.options.patience} compares test accuracies: give a test set")
        return Epochs(self.epochs(train, test, epochs, watch), self.one_thread)

    def epochs(
        self, train: Dataset, test: Dataset | None, epochs: int, watch: Callable[[IntervalReport], None] | None
    ) -> Generator[EpochReport, None, None]:
        """The epochs of ``fit``."""
        self.prepare(train)
        batches = self.loader(train, training=True)
        test_batches = self.loader(test, training=False) if test else None
        if self.schedule_name and not self.clock.step:
            total = epochs * len(batches)
            total = min(total, self.options.max_steps or total)
            self.schedule = schedule_named(self.schedule_name, self.optimizer.lr, total)
        if self.progress.cut and not self.out_of_steps():
            self.progress.reopen()
        while self.progress.epoch < epochs and not (
            self.out_of_patience() or self.out_of_steps() or self.stop_requested
        ):
            start = perf_counter()
            finished, rate = self.train_epoch(batches, watch)
            if not finished:
                return
            trained = self.metrics.read()  # sync
            tested = self.evaluate_batches(test_batches) if test_batches else UNTESTED
            if test_batches and not isfinite(tested.loss):
                raise NotANumberError(f"the test loss of epoch {self.progress.epoch + 1} is {tested.loss}; {REMEDY}")
            cut = self.progress.batch if self.progress.batch < len(batches) else 0
            with self.whole_steps:
                report = self.close_epoch(trained, tested, perf_counter() - start, rate, cut)
            yield report

    def prepare(self, train: Dataset) -> None:
        """Before the first step: take the training set's mean and std, check shapes, fit whitening filters."""
        if self.whole_steps.torn:
            raise UsageError("a second Ctrl-C has left a step of this trainer half done: make a new model and trainer")
        if self.model.flat is not self.flat or self.optimizer.flat is not self.flat:
            raise UsageError("this trainer's model or optimizer was given to another Trainer: make new ones for each")
        self.mean, self.std = self.mean or train.mean, self.std or train.std
        self.image_shape, self.classes, self.trained_on = train.image_shape, train.classes, train.name
        self.pixels = str(train.images.dtype)
        outputs = self.model.output_shape(train.image_shape)
        if self.loss in CLASS_LOSSES and outputs != (train.num_classes,):
            raise ShapeError(
                f"the model gives outputs {outputs} for an image, but {train.name} has {train.num_classes} classes: "
                f"end it with {train.num_classes} outputs, as by Linear(..., {train.num_classes})"
            )
        if self.clock.step == 0:
            whiten(self.model, train.images, self.mean, self.std, self.kept)

    def train_epoch(self, batches: Loader, watch: Callable[[IntervalReport], None] | None = None) -> tuple[bool, float]:
        """The rest of the current epoch -> (whether it was finished, images per second)."""
        progress = self.progress
        if progress.batch == 0:
            self.metrics.reset()
        self.model.train()
        # once an epoch, so that a run resumed within one computes the same
        if self.model.freeze(self.optimizer.frozen_groups(progress.epoch * len(batches))):
            self.compute = with_cuda_graph(self.descend, self.backend, self.clock, self.options.cuda_graph)
        start, before = perf_counter(), self.metrics.examples
        with self.whole_steps, closing(batches.epoch(progress.epoch, progress.batch)) as reading:
            for x, labels in reading:
                self.train_step(x, labels)
                progress.batch += 1
                finished = progress.batch == len(batches) or self.out_of_steps()
                stopping = finished or self.stop_requested
                if progress.batch % self.options.log_interval == 0 or stopping:
                    loss, accuracy = self.metrics.read()  # sync
                    if not isfinite(loss) or self.precision.exhausted():  # sync
                        raise self.nonfinite_error(x, labels, self.clock.step - 1)
                    if watch:
                        watch(self.interval_report(len(batches), loss, accuracy, before, perf_counter() - start))
                if stopping or self.whole_steps.pressed:
                    break
        rate = (self.metrics.examples - before) / max(perf_counter() - start, 1e-9)
        # batch may be beyond the end: a run can be forced to resume with larger, and so fewer, batches
        return progress.batch >= len(batches) or self.out_of_steps(), rate

    def interval_report(
        self, batches: int, loss: float, accuracy: float, before: int, seconds: float
    ) -> IntervalReport:
        """Where the current epoch of ``batches`` is, with ``before`` of its examples done ``seconds`` ago."""
        done, progress, step = self.metrics.examples, self.progress, self.clock.step
        rates = (done - before) / seconds, done, step, self.schedule(step - 1)
        return IntervalReport(progress.epoch + 1, progress.batch, batches, loss, accuracy, *rates)

    def close_epoch(
        self, trained: tuple[float, float], tested: Evaluation, seconds: float, images_per_second: float, cut: int = 0
    ) -> EpochReport:
        """Count the epoch, remember the best one, and report; ``cut`` batches where it ended early, whose sums stay."""
        progress, lr = self.progress, self.schedule(max(self.clock.step - 1, 0))
        progress.epoch, progress.batch, progress.cut = progress.epoch + 1, 0, cut
        if not cut:
            self.metrics.reset()
        report = EpochReport(progress.epoch, *trained, tested.loss, tested.accuracy, lr, seconds, images_per_second)
        if report.test_accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.best_epoch = report.test_accuracy, report.epoch
        timings = ("seconds", "images_per_second")
        progress.history.append({k: v for k, v in asdict(report).items() if k not in timings})
        return report

    def out_of_steps(self) -> bool:
        """Whether ``max_steps`` steps are done."""
        return 0 < self.options.max_steps <= self.clock.step

    def out_of_patience(self) -> bool:
        """Whether the last ``patience`` epochs brought no better test accuracy."""
        return 0 < self.options.patience <= self.progress.epoch - self.progress.best_epoch

    @checked
    def evaluate(self, dataset: Dataset, tta: str = "none") -> Evaluation:
        """Loss, accuracy and predictions on a data set; changes nothing in the trainer or its model.

        Images are normalised by the trainer's mean and std, or by the data set's own before the trainer has any.

        Args:
            tta: the name of the ``VIEWS`` that logits are averaged over (``inference/tta.py``).
        """
        with self.one_thread:
            training = self.model.training
            try:
                return self.evaluate_batches(self.loader(dataset, training=False), tta)
            finally:
                if training:
                    self.model.train()

    def evaluate_batches(self, batches: Loader, tta: str = "none") -> Evaluation:
        """The same on batches, with averaged weights if there are any for evaluation; leaves the model in that mode."""
        self.model.eval()
        with averaged(self.averages):
            return evaluate(partial(self.precision.forward, self.model), batches, self.loss, tta)

    def loader(self, dataset: Dataset, *, training: bool) -> Loader:
        """Batches of a data set: shuffled and augmented in training, plain and in order otherwise.

        Raises DataError for bytes where floats were trained on, whose mean and std are on another scale, or vice versa.
        """
        if self.trained_on and (found := str(dataset.images.dtype)) != self.pixels:
            raise DataError(f"{dataset.name} has {found} images, {self.trained_on} has {self.pixels}: give one kind")
        return Loader(
            dataset,
            self.batch_size,
            backend=self.backend,
            mean=self.mean or dataset.mean,
            std=self.std or dataset.std,
            seed=self.clock.seed,
            shuffle=training,
            drop_last=self.options.drop_last and training,
            augmentation=self.augmentation if training else None,
            memory=images_limit(self.options.data_memory, free()) if (free := self.backend.free_memory) else None,
        )

    def check_finite(self, loss: Array, x: Array, labels: Array) -> None:
        """Stop before an update by NaN or infinity; an asynchronous device is checked at the next reading."""
        if self.backend.synchronous:
            grad = self.model.flat.grad
            with np.errstate(over="ignore"):  # of a sum of squares: then the slower question decides
                finite = self.precision.skips_nonfinite or isfinite(grad @ grad) or np.isfinite(grad).all()
            if not (isfinite(loss) and finite):
                raise self.nonfinite_error(x, labels, self.clock.step)

    def nonfinite_error(self, x: Array, labels: Array, step: int) -> NotANumberError:
        """The error that names the place; it carries the batch.  # sync"""
        reason = explain_nonfinite(self.model, self.precision.stored(x), step)
        return NotANumberError(reason, (self.backend.to_host(x), self.backend.to_host(labels)))
