"""What ``gpucnn train`` says of a fine-tuning: what is taken, what is new, what is frozen, and the head."""

from collections.abc import Iterator, Mapping, Sequence

from gpucnn.cli.columns import columns, counted
from gpucnn.layers import Layer
from gpucnn.layers.base import MISSING, TAKEN, sizes
from gpucnn.runs.build import HEAD
from gpucnn.runs.catalogue import PRETRAINED
from gpucnn.runs.config import Config
from gpucnn.runs.fine_tuning import Source

FEW = 6  # names on a line, where not all are asked for


def about_fine_tuning(
    model: Layer, config: Config, source: Source | None, report: Mapping[str, str], *, verbose: bool
) -> Iterator[tuple[str, str]]:
    """(head, text) of each line: of a run that starts from a source, and of frozen parameters and a head's rate."""
    parameters, t = model.parameters(), config.train
    if source:
        of_file = config.data.mean == source.config.data.mean and config.data.std == source.config.data.std
        statistics = "the file's" if of_file else "the new images'"
        taken = [name for name, reason in report.items() if reason == TAKEN]
        fraction = f"{len(taken)} of {counted(len(report), 'tensor')} taken, {share(model, taken)}"
        place = source.path.name if source.path.parent == PRETRAINED else source.path
        yield "init", f"{place}: {fraction}; mean and std are {statistics}"
        shapes = [f"{name} ({reason})" for name, reason in report.items() if reason not in (TAKEN, MISSING)]
        lacking = [name for name, reason in report.items() if reason == MISSING]
        unused = [name for name in source.state if name not in report]
        for kind, names in (("new, its shape differs", shapes), (f"new, {MISSING}", lacking), ("not used", unused)):
            if names:
                yield "", f"{kind}: {listed(names, verbose)}"
    if t.freeze:
        found = [name for name, parameter in parameters.items() if parameter.frozen]
        part = f"{len(found)} of {counted(len(parameters), 'parameter')}, {share(model, found)}"
        yield "frozen", f"{', '.join(t.freeze)}: {part}"
    head = [name for name, parameter in parameters.items() if parameter.group in HEAD]
    if t.head_lr:
        yield "head", f"learning rate {t.head_lr:g} for {listed(head, verbose)}"


def tensor_lines(model: Layer, report: Mapping[str, str]) -> list[str]:
    """A line for each tensor of the model: its shape, and whether it was taken."""
    shapes = {name: entry.shape for name, entry in model.parameters().items()}
    shapes |= {name: entry.shape for name, entry in model.buffers().items()}
    return columns([[name, sizes(shapes[name]), reason] for name, reason in report.items()], "<", "       ")


def share(model: Layer, names: Sequence[str]) -> str:
    """How many of a model's weights these parameters have."""
    parameters = model.parameters()
    count = sum(parameters[name].size for name in names if name in parameters)
    return f"{count:,} of {sum(parameter.size for parameter in parameters.values()):,} weights"


def listed(names: Sequence[str], verbose: bool) -> str:
    """Names with commas; of many the first ones."""
    if verbose or len(names) <= FEW:
        return ", ".join(names)
    return f"{', '.join(names[:FEW])} and {len(names) - FEW} more (--verbose lists all)"
