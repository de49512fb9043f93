"""``gpucnn train``: from settings to a run directory with logs and checkpoints."""

import argparse
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from types import FrameType
from typing import Any

from gpucnn.backend import Backend
from gpucnn.bench.profiler import explain, stopwatch, table
from gpucnn.checkpoint import Checkpoint
from gpucnn.cli import signals
from gpucnn.cli.columns import columns, command, counted, paragraph, sentence
from gpucnn.cli.fine_tuning import about_fine_tuning, tensor_lines
from gpucnn.cli.options import (
    add_data_options,
    add_setting_flags,
    backend_from,
    check_number,
    describe,
    flag_of,
    flags_given,
    load_fitted,
)
from gpucnn.cli.progress import Display
from gpucnn.cli.repeat import repeat
from gpucnn.data import Dataset
from gpucnn.data.registry import is_path, title
from gpucnn.data.stored import StoredImages
from gpucnn.devices.gpu_memory import memory_explained
from gpucnn.errors import DataError, GpucnnError, NotANumberError, UsageError
from gpucnn.explain.live import LiveView
from gpucnn.runs import catalogue
from gpucnn.runs.build import build_trainer, split, steps_in_epoch, total_steps, without_effect
from gpucnn.runs.config import Config
from gpucnn.runs.directory import RUNS, RunDirectory, new_path
from gpucnn.runs.environment import environment, stable_part
from gpucnn.runs.fine_tuning import Source, found_at_start, read_source, resolve_start, two_models
from gpucnn.runs.log import JSONL, STEPS, StepLog, event_writer
from gpucnn.runs.resume import FROM_DATA, Resumed, find_resumed, refuse_changes
from gpucnn.runs.state import capture, restore
from gpucnn.terminal import quoted, say
from gpucnn.training.precision import POLICIES
from gpucnn.training.trainer import IntervalReport, Trainer
from gpucnn.version import __version__

HIDDEN = (*FROM_DATA, "train.init_digest", "train.drawn")
HORIZON = ("cosine", "one_cycle", "triangular")  # schedules that stretch with the length of the run


def add_recipe_arguments(parser: argparse.ArgumentParser, reads: Collection[str] = ()) -> None:
    """The flags that say what is trained, and how: of all settings, or of those of these names."""
    parser.add_argument("--config", "-c", type=Path, metavar="FILE", help="a TOML file, as gpucnn recipes NAME prints")
    recipe = "one of gpucnn recipes, or none for the defaults (default: one that fits --dataset, where it is alone)"
    parser.add_argument("--recipe", metavar="NAME", help=recipe)
    any_setting = "any setting, for example data.augmentation.crop=2"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=any_setting)
    add_setting_flags(parser, reads)
    add_data_options(parser)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    resume = "go on from a checkpoint or run folder, or 'auto' for the latest run"
    several = "train N times, with seeds one after the other, and compare"
    parser.add_argument("--output", type=Path, metavar="DIR", help="run folder (default: runs/DATE-TIME-NAME)")
    parser.add_argument("--resume", metavar="PATH", help=resume)
    parser.add_argument("--explain", action="store_true", help="first show which op takes how much of a step")
    parser.add_argument("--force", action="store_true", help="resume even where settings or data have changed")
    parser.add_argument("--verbose", "-v", action="store_true", help="show all settings, the defaults too")
    parser.add_argument("--live", action="store_true", help="show curves, filters and gradients in a browser here")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help=several)


def settings(
    args: argparse.Namespace,
    base: Config | None = None,
    unread: Collection[str] = (),
    defaults: Config | None = None,
) -> Config:
    """``defaults`` or ``base`` < --config or --recipe < --set < flags.

    Raises:
        UsageError: a setting that was given changes nothing, because of others or as it is ``unread`` by this command.
    """
    flags, file = flags_given(args), config_file(args, base)
    config = Config.from_file(file, defaults) if file else base or defaults or Config()
    for assignment in args.set:
        config = config.with_setting(assignment)
    for name, value in flags.items():
        config = config.with_value(name, value)
    asked = {assignment.partition("=")[0].strip(): f"--set {assignment}" for assignment in args.set}
    asked |= {name: flag_of(name) if value is True else f"{flag_of(name)} {value}" for name, value in flags.items()}
    for name, words in asked.items():
        if reason := f"gpucnn {args.command} does not use it" if name in unread else without_effect(config, name):
            raise UsageError(f"{words} has no effect: {reason}")
    return config


def config_file(args: argparse.Namespace, base: Config | None = None) -> Path | None:
    """The TOML file of --config, of --recipe, or of the recipe that fits the data set; None for no file."""
    if args.config and args.recipe:
        raise UsageError(f"--config {args.config} and --recipe {args.recipe}: give one of them")
    if args.recipe == "":
        raise UsageError("--recipe '': give a name of gpucnn recipes, or none")
    name = args.recipe or fitting(args, base)
    return args.config or (catalogue.recipe(name) if name and name != "none" else None)


def fitting(args: argparse.Namespace, base: Config | None = None) -> str:
    """The recipe that stands for --dataset where nothing else says which net and augmentation; "" for none."""
    given = dict(assignment.split("=", 1) for assignment in args.set if "=" in assignment) | flags_given(args)
    named = args.config or args.recipe or base or any(name.startswith(("model.", "train.init")) for name in given)
    return "" if named else catalogue.FITTING.get(str(given.get("data.dataset", "")).lower(), "")


def settings_and_source(
    args: argparse.Namespace, base: Config | None = None, unread: Collection[str] = ()
) -> tuple[Config, Source | None]:
    """``settings``, and what a new run with --init starts from: also its model, where no other one is named."""
    if flags_given(args).get("train.init") == "":
        raise UsageError("--init '': give a checkpoint, a run's folder or a pretrained model, or leave it out")
    config = settings(args, base, unread, found_at_start(base) if base else None)
    if base or not config.train.init:
        return config, None
    source = read_source(config.train.init)
    first, second = (settings(args, defaults=other).model.name for other in two_models())
    named = first == second
    return config if named else settings(args, defaults=source.defaults()), source


def load_data(args: argparse.Namespace, config: Config) -> tuple[Dataset, Dataset]:
    """What to train and to test on."""
    train, validation, test = load_fitted(config.data.dataset, args, config)
    if train.num_classes == 1:
        raise DataError(
            f"{config.data.dataset} has one class, {train.classes[0]}, and a network tells at least two apart: if that "
            "is a folder of classes, name it instead"
        )
    return split(config, train, test, validation)


def run(args: argparse.Namespace) -> int:
    """Train, or go on with a run, once or several times; returns 0, or 128 and the signal that ended it."""
    check_number("--repeat", args.repeat, 1, 1000)
    if args.repeat == 1:
        return run_once(args)
    config = checked(settings_and_source(args)[0])
    return repeat(args, config.train.seed, config_name(config, config_file(args)), run_once)


def run_once(args: argparse.Namespace) -> int:
    """One run."""
    resumed = find_resumed(args.resume, args.output, RUNS)
    config, source = settings_and_source(args, resumed.config if resumed else None)
    config = checked(config)
    backend, reason = backend_from(config.run)
    train, test = load_data(args, config)
    config = resolve_start(config, train, source)
    trainer = build_trainer(config, train, backend)
    report = trainer.start_from(source.state) if source else {}
    if resumed:
        if not args.force:
            refuse_changes(resumed, config, train.digest, test.digest)
        restore(resumed.checkpoint, trainer)
    where, why_new = destination(args, config, resumed)
    position = resumed.position if resumed and resumed.folder.resolve() == where.resolve() else None
    about = environment(config.run.device, backend.name, reason, tf32=config.train.amp == "tf32")
    opened = RunDirectory(where, position=position, again=resumed is not None or args.resume == "auto")
    with opened as folder, memory_explained(config.train.batch_size, where / "last.h5"):
        introduce(trainer, config, train, test, resumed, verbose=args.verbose)
        for head, lines in about_fine_tuning(trainer.model, config, source, report, verbose=args.verbose):
            note(head, lines)
        say(*tensor_lines(trainer.model, report) if args.verbose else ())
        if fits := fitting(args, resumed.config if resumed else None):
            note("recipe", f"{fits} fits {config.data.dataset}; others: gpucnn recipes; without: --recipe none")
        if why_new:
            note("", f"{why_new}: this run goes on in a new folder")
        say(f"run    {folder.path}")
        if args.explain:
            clocked = build_trainer(config, train, stopwatch(backend))
            rows = explain(clocked, config.model.input_shape, config.model.num_classes)
            say(*columns(table(rows), "<<<>"))
        progress, logs = trainer.progress, [resumed.folder / JSONL] if resumed else []
        folder.begin(config.to_toml(), about, progress.history, *logs, tensorboard=config.run.tensorboard)
        taken = partial(capture, trainer, config, stable_part(about), train.digest, test.digest)
        if resumed:
            folder.catch_up(taken(), best=0 < progress.epoch == progress.best_epoch and not progress.batch)
        live = (
            LiveView(trainer.model, f"{folder.path.name}: {config.model.name} on {train.name}") if args.live else None
        )
        if live:
            note("live", folder.enter_context(live.serve()))
        watchers = [live.at_interval] if live else []
        if config.run.log_steps:
            logs = [resumed.folder / STEPS] if resumed else []
            watchers.append(StepLog(where / STEPS, *logs, step=trainer.clock.step, sums=trainer.metrics.sums()).append)
        return train_in(folder, trainer, config, train, test, taken, where_data_lies(args), watchers, live)


def checked(config: Config) -> Config:
    """The settings, before a folder is made: raises UsageError where what they need is not installed."""
    if config.run.tensorboard:
        event_writer()
    return config


def where_data_lies(args: argparse.Namespace) -> list[str]:
    """The words by which another command finds the same files, and the same code."""
    found = [("--plugin", path) for path in getattr(args, "plugin", None) or ()]
    found += [("--data-dir", args.data_dir)] if args.data_dir else []
    return [word for flag, path in found for word in (flag, quoted(path))]


def train_in(
    folder: RunDirectory,
    trainer: Trainer,
    config: Config,
    train: Dataset,
    test: Dataset,
    taken: Callable[[], Checkpoint],
    words: Sequence[str],
    watchers: Sequence[Callable[[IntervalReport], None]] = (),
    live: LiveView | None = None,
) -> int:
    """The loop, with everything that must outlive it written to the folder.

    Args:
        taken: captures the current state.
        words: end the commands that are printed.
        watchers: get each reading of the running metrics.
        live: shows the run in a browser.
    """
    display = Display(config.train.epochs, config.train.max_steps)
    display.begin(trainer.progress.epoch + 1)

    def watch(report: IntervalReport) -> None:
        for see in (display.interval, *watchers):
            see(report)

    try:
        with stopping_on_signals(trainer) as received:
            for report in trainer.fit(train, test, epochs=config.train.epochs, watch=watch):
                best = report.epoch == trainer.progress.best_epoch
                folder.append_metrics(asdict(report))
                checkpoint = taken()
                folder.save_last(checkpoint)
                if best:
                    folder.save_best(checkpoint)
                display.epoch(report, best=best)
                if live:
                    live.at_epoch(report)
    except NotANumberError as error:
        if not error.batch:
            raise
        try:
            place = f"the batch is in {folder.save_batch(error.batch)}"
        except GpucnnError as reason:
            place = str(reason)
        raise NotANumberError(f"{error}; {place}") from None
    finally:
        display.close()
    if received:
        folder.save_last(taken())
        place = f"epoch {trainer.progress.epoch}, batch {trainer.progress.batch}"
        how = command("go on with:", "train", "--resume", quoted(folder.path), *words)
        with suppress(OSError):
            display.line(f"stopped by {received[0].name} after {place}", *how)
        return 128 + received[0]
    conclude(display, trainer, folder.path, words, config.data.dataset)
    if (tta := config.train.tta) != "none":  # test-time augmentation: the last weights once more, averaged over views
        tested, epoch = trainer.evaluate(test, tta), trainer.progress.epoch
        if not isfinite(tested.loss):
            raise NotANumberError(f"with views {tta}, the test loss is {tested.loss}: train again with a lower rate")
        folder.write_result({"tta": tta, "epoch": epoch, "test_loss": tested.loss, "test_accuracy": tested.accuracy})
        averaged = f"test accuracy {tested.accuracy:.4f} after epoch {epoch}, with views: {tta}"
        display.line(*sentence("tta", averaged, 7))
    return 0


@contextmanager
def stopping_on_signals(trainer: Trainer) -> Iterator[list[signal.Signals]]:
    """The first Ctrl-C, SIGTERM or lost terminal ends the run after the current step; the second one at once."""
    received: list[signal.Signals] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        trainer.stop_requested = True
        handlers.close()
        signals.say("finishing this step and saving; once more to stop at once")

    with ExitStack() as handlers:
        for kind in signals.handled():
            handlers.callback(signal.signal, kind, signal.signal(kind, stop))
        yield received


def destination(args: argparse.Namespace, config: Config, resumed: Resumed | None) -> tuple[Path, str]:
    """The run folder, and why it is not that of the checkpoint which the run goes on from."""
    if args.output:
        return args.output, ""
    why_new = resumed.elsewhere() if resumed else ""
    if resumed and not why_new:
        return resumed.folder, ""
    return new_path(RUNS, config_name(config, config_file(args, resumed.config if resumed else None))), why_new


def config_name(config: Config, file: Path | None) -> str:
    """What the run folder is called after its date."""
    return file.stem if file else f"{title(config.data.dataset)}_{config.model.name}"


def introduce(
    trainer: Trainer, config: Config, train: Dataset, test: Dataset, resumed: Resumed | None, *, verbose: bool
) -> None:
    """The first lines of a run: data, model, settings and where it goes on."""
    shape, kind = config.model.input_shape, "validation" if config.data.validation else "test"
    images = f"{len(train.labels):,} training and {len(test.labels):,} {kind} images {' x '.join(map(str, shape))}"
    parameters = sum(parameter.size for parameter in trainer.model.parameters().values())
    mflop = trainer.model.flops(shape) / 1e6
    cost = f"{parameters:,} parameters, {mflop:{',.1f' if mflop >= 1 else '.2g'}} MFLOP forward for one image"
    note(f"gpucnn {__version__}", f"on {describe(trainer.backend)}")
    if line := about_precision(trainer.backend, config.train.amp):
        note("amp", line)
    place = f", read from {train.images.path} as they are needed" if isinstance(train.images, StoredImages) else ""
    note("data", f"{train.name}: {images}, {config.model.num_classes} classes{place}")
    note("model", f"{config.model.name}: {cost}")
    for head, text in about_settings(config, verbose).items():
        say(*paragraph(f"{head:<6} ", text, max(7, len(head) + 1)))
    if resumed:
        note("resume", f"{resumed.path}: epoch {trainer.progress.epoch}, batch {trainer.progress.batch}")
        steps, before = (total_steps(c, steps_in_epoch(config, train)) for c in (config, resumed.config))
        if trainer.out_of_steps():
            note("", f"all {counted(config.train.max_steps, 'step')} are done; give a larger --max-steps to go on")
        elif trainer.out_of_patience():
            note("", f"no better for {counted(config.train.patience, 'epoch')}; give a larger --patience to go on")
        elif trainer.progress.epoch >= config.train.epochs and not trainer.progress.cut:
            note("", f"nothing is left of {counted(config.train.epochs, 'epoch')}; give a larger --epochs to go on")
        elif steps != before and config.schedule.name in HORIZON:
            spans = f"{steps} steps instead of {before}"
            note("", f"the {config.schedule.name} schedule now spans {spans}: the learning rate jumps")


def note(head: str, text: str) -> None:
    """A line or more, ``head   text``."""
    say(*sentence(head, text, max(7, len(head) + 1)))


def about_settings(config: Config, verbose: bool) -> dict[str, str]:
    """Those settings that differ from the defaults, or all by their tables; not what the data set determines."""
    defaults = Config().flat()
    chosen = {name: value for name, value in config.flat().items() if value not in (None, ()) and name not in HIDDEN}
    if not verbose:
        changed = [f"{name}={compact(value)}" for name, value in chosen.items() if value != defaults.get(name)]
        return {"set": ", ".join(changed) or "nothing but the defaults, which --verbose shows"}
    tables: dict[str, list[str]] = {}
    for name, value in chosen.items():
        table, _, key = name.rpartition(".")
        tables.setdefault(table, []).append(f"{key}={compact(value)}")
    return {table: ", ".join(words) for table, words in tables.items()}


def about_precision(backend: Backend, amp: str) -> str:
    """A note on ``train.amp`` on this backend; "" where none is needed."""
    if not POLICIES[amp].suits(backend):
        return f"not used: {backend.name} computes in float32, --amp {amp} is for a GPU"
    if amp == "off" and POLICIES["tf32"].suits(backend):
        return "off: true float32; --amp fp16 is faster, and tf32 lets convolutions alone use tensor cores"
    return ""


def compact(value: Any) -> str:
    """A setting in a few characters."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        comma = ", " if any(isinstance(one, dict) for one in value) else ","  # layers may be many: lines end there
        return f"[{comma.join(map(compact, value))}]"
    if isinstance(value, dict):
        return str(value.get("layer"))
    return str(value).lower() if isinstance(value, bool) else repr(value) if value == "" else str(value)


def conclude(display: Display, trainer: Trainer, folder: Path, words: Sequence[str], dataset: str) -> None:
    """The last lines: the accuracies, the files, and the next command."""
    progress = trainer.progress
    if not progress.history:
        return
    last = progress.history[-1]
    early = " (stopped early: no better for a while)" if trainer.out_of_patience() else ""
    best = f"best {progress.best_accuracy:.4f} after epoch {progress.best_epoch}"
    done = f"test accuracy {last['test_accuracy']:.4f} after epoch {progress.epoch}{early}, {best}"
    display.line(*sentence("done", done, 7))
    files = [folder / name for name in ("best.h5", "last.h5") if (folder / name).exists()]
    if files:  # a run resumed in another folder writes best.h5 only when it improves
        display.line(*sentence("saved", f"{', '.join(map(str, files))}, {folder / 'metrics.jsonl'}", 7))
        display.line(*command("next  ", "evaluate", "--checkpoint", quoted(files[0]), *words))
        without_data = words[: words.index("--data-dir")] if "--data-dir" in words else words
        folder_given = is_path(dataset) and Path(dataset).expanduser().is_dir()
        images = quoted(dataset) if folder_given else "IMAGE.png"
        display.line(*command("      ", "predict", "--checkpoint", quoted(files[0]), *without_data, images))
