"""Layer: forward, backward, training and evaluation mode, parameters, state."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import wraps
from html import escape
from math import isfinite
from typing import Any, Self

from gpucnn.backend import REFERENCE, Backend, array_module
from gpucnn.errors import CheckpointError, NotANumberError, UsageError, closest
from gpucnn.layers.parameter import Buffer, FlatBuffers, FlatParameters, Parameter
from gpucnn.random import Clock, stream_id
from gpucnn.settings import Checked, checked, in_short
from gpucnn.types import Array, Shape


def recorded(constructor: Callable[..., None]) -> Callable[..., None]:
    """The same constructor, which keeps what the layer was made with, for ``models.to_spec``."""

    @wraps(constructor)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        for value in (*args, *kwargs.values()):
            if isinstance(value, float) and not isfinite(value):
                raise UsageError(f"{type(self).__name__}({value}): give a finite number")
        if isinstance(eps := kwargs.get("eps"), int | float) and eps < 0:
            raise UsageError(f"{type(self).__name__}(eps={eps}): give a number >= 0")
        vars(self).setdefault("made_with", (args, kwargs))  # that of a base class is called later
        constructor(self, *args, **kwargs)

    return call


class Layer(Checked):
    """Owns parameters and keeps what backward needs; the maths is in pure functions beside it.

    A subclass defines ``forward`` and ``backward``, and ``output_shape`` where that is not the input's shape.
    Images are (N, H, W, C); ``shape`` arguments are without the batch axis.
    """

    backend: Backend = REFERENCE
    clock: Clock = Clock()
    training: bool = True
    needs_input_grad: bool = True
    learned: bool = True
    fixed: bool = False
    name: str = ""
    built: Mapping[str, Any] | None = None
    """Of a model by name: what ``models.build`` made it of (name, input_shape, num_classes, options)."""

    equations: tuple[str, ...] = ()
    """What it computes, forward and backward, number by number: the text that ``explain/equations.py`` reads."""

    made_with: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
    """The arguments of its constructor."""

    _kept: tuple[Any, ...] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = recorded(cls.__init__)  # type: ignore[method-assign]

    # -- the maths ------------------------------------------------------------------------------------

    def forward(self, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array | None:
        """dL/dy -> dL/dx; also assigns the gradients of the parameters.

        Returns None where dL/dx is not needed (``needs_input_grad`` is False).
        """
        raise NotImplementedError

    def __call__(self, x: Array) -> Array:
        """``forward`` after a check of the shape."""
        array_module(x)  # refuses what is no array
        self.output_shape(tuple(x.shape[1:]))
        return self.forward(x)

    def run(self, op: Callable[..., Any], *args: Any) -> Any:
        """Run op on this layer's backend."""
        return self.backend.run(op, *args)

    def keep(self, *values: Any) -> None:
        """Keep what backward needs; in evaluation, and where there is no backward, nothing is kept."""
        self._kept = values if self.training and self.needs_backward else None

    def kept(self) -> tuple[Any, ...]:
        """What forward kept, returned once, so that its memory is free early.

        Raises:
            UsageError: there was no forward in training mode, or backward has run already.
        """
        if self._kept is None:
            where = f"{self.name or 'the model'} ({self.kind})"
            raise UsageError(f"backward of {where} without a forward in training mode before it: call train()")
        values, self._kept = self._kept, None
        return values

    def save(self, path: object) -> None:
        """Writes no file, and says what does.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"save({in_short(path)}) writes no file: trainer.save(path) does, for gpucnn.load; or weights alone by "
            "numpy.savez(path, **model.state_dict()), and model.load_state_dict(numpy.load(path)) to read it"
        )

    def symbols(self) -> dict[str, Any]:
        """What ``equations`` calls by name besides x, y, dx and dy.

        Values are parameters (w, with dw for its gradient), numbers, inner layers (their output, and with d the
        gradient they return), functions of x that give an array, or None for what this layer lacks.
        """
        return {}

    # -- shapes and costs -----------------------------------------------------------------------------

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of y for an x of this shape; raises ShapeError where the layer cannot take x."""
        return shape

    def flops(self, shape: Shape) -> int:
        """Floating-point operations of one forward pass of one example (a multiply-add is two)."""
        return 0

    # -- the tree -------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """The name of its class, for tables and messages."""
        return type(self).__name__

    def children(self) -> dict[str, "Layer"]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Layer)}

    def named_layers(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        """This layer and all layers in it, depth first, with dotted names."""
        yield prefix, self
        for name, child in self.children().items():
            yield from child.named_layers(f"{prefix}.{name}" if prefix else name)

    def parameters(self) -> dict[str, Parameter]:
        return self._collect(Parameter)

    def buffers(self) -> dict[str, Buffer]:
        return self._collect(Buffer)

    def _collect(self, kind: type) -> dict[str, Any]:
        return {
            f"{prefix}.{name}" if prefix else name: value
            for prefix, layer in self.named_layers()
            for name, value in vars(layer).items()
            if isinstance(value, kind)
        }

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Name, class, number of parameters and their shapes of the layers that compute, and the total."""
        rows, total = [], 0
        for name, layer in self.named_layers():
            if not layer.children():
                own = layer.parameters()
                shapes = ", ".join(f"{key} {' × '.join(map(str, p.shape))}" for key, p in own.items())
                count = sum(p.size for p in own.values())
                rows.append((name, layer.kind, f"{count:,}", shapes))
                total += count
        return [*rows, ("total", "", f"{total:,}", "")]

    def __repr__(self) -> str:
        """A table of the layers that compute; ``gpucnn.summary`` has their output shapes and operations too."""
        if not self.children():
            return "  ".join(filter(None, self._rows()[0]))
        rows = [("layer", "", "parameters", "shapes"), *self._rows()]
        a, b, c, d = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [f"{name:<{a}}  {kind:<{b}}  {count:>{c}}  {shapes:<{d}}" for name, kind, count, shapes in rows]
        return "\n".join(map(str.rstrip, lines))

    def _repr_html_(self) -> str:
        """The same table, for notebooks."""
        head = "<tr><th>layer</th><th></th><th>parameters</th><th>shapes</th></tr>"
        *rows, total = ([escape(cell) for cell in row] for row in self._rows())
        body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in rows)
        return f"<table>{head}{body}<tr><th>total</th><td></td><th>{total[2]}</th><td></td></tr></table>"

    def train(self) -> Self:
        """Training mode: dropout drops, batch norm uses the batch, backward is possible."""
        return self._set_mode(True)

    def eval(self) -> Self:
        """Evaluation mode: dropout passes, batch norm uses its running statistics, nothing is kept."""
        return self._set_mode(False)

    def _set_mode(self, training: bool) -> Self:
        for _, layer in self.named_layers():
            layer._enter_mode(training)
        return self

    def _enter_mode(self, training: bool) -> None:
        """Switch this layer alone; what it kept for backward is dropped."""
        self.training, self._kept = training, None

    def skip_input_grad(self) -> None:
        """Compute no dL/dx of the model's own input."""
        self.needs_input_grad, self.learned = False, self.learns()

    @property
    def needs_backward(self) -> bool:
        """Whether backward computes anything: a container calls it only where this is true."""
        return self.needs_input_grad or self.learned

    def learns(self) -> bool:
        """Whether any parameter is trainable."""
        return any(parameter.trainable for parameter in self.parameters().values())

    def freeze(self, groups: Collection[str]) -> bool:
        """Freeze the parameters of these groups, and skip the gradients that only they needed.

        Returns whether there was anything left to freeze, so that backward computes less than before.
        """
        found = [p for p in self.parameters().values() if p.group in groups and p.trainable]
        for parameter in found:
            parameter.freeze()
        if found and not self.needs_input_grad:
            self.skip_input_grad()
        return bool(found)

    @checked
    def freeze_matching(self, patterns: str | Sequence[str]) -> list[str]:
        """Freeze parameters by name, as "features.*", before ``initialize`` or a Trainer -> the names that match.

        They join the group "frozen": no gradient, update, decay or average.  A layer of which all parameters match is
        ``fixed``: batch norm then uses its running statistics, and leaves them as they are.

        Raises:
            UsageError: a pattern that matches nothing, nothing left to train, or an initialised model.
        """
        entries = self.parameters()
        found: dict[str, None] = {}
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            if not (matching := [name for name in entries if fnmatchcase(name, pattern)]):
                raise UsageError(f"freeze {pattern!r} matches no parameter{closest(pattern, starts(entries))}")
            found |= dict.fromkeys(matching)
        if found and "flat" in vars(self):
            raise UsageError("freeze_matching of an initialised model: call it before initialize and before Trainer")
        if found and all(name in found or parameter.frozen for name, parameter in entries.items()):
            asked = patterns if isinstance(patterns, str) else ", ".join(patterns)
            raise UsageError(f"freeze {asked!r}: nothing is left to train; give fewer names, as 'features.*'")
        chosen = {entries[name] for name in found}
        for parameter in chosen:
            parameter.group, parameter.frozen = "frozen", True
        for _, layer in self.named_layers():
            own = {value for value in vars(layer).values() if isinstance(value, Parameter)}
            layer.fixed = layer.fixed or (bool(own) and own <= chosen)
        return list(found)

    # -- state ----------------------------------------------------------------------------------------

    @checked
    def initialize(
        self,
        seed: int = 0,
        backend: Backend = REFERENCE,
        dtype: str = "float32",
        clock: Clock | None = None,
        keep: bool = False,
    ) -> Self:
        """Put all parameters into flat arrays on the backend and set their initial values.

        These depend only on the seed and the parameter's name and are computed on the host, so a model starts from the
        same weights everywhere.

        Args:
            keep: parameters and buffers that have values keep them; without it they start anew.
        """
        parameters = self.parameters()
        kept = self.filled() if keep else {}
        self.flat = FlatParameters(parameters, backend, dtype)
        for name, parameter in parameters.items():
            values = parameter.init(parameter.shape, seed, stream_id(name))
            parameter.data[...] = backend.to_device(values.astype(dtype))
        self.flat_buffers = FlatBuffers(self.buffers(), backend, dtype)
        entries: dict[str, Parameter | Buffer] = {**parameters, **self.buffers()}
        for name, old in kept.items():
            entries[name].data[...] = backend.to_device(old.astype(dtype))
        clock = clock or Clock(seed)
        for name, layer in self.named_layers():
            layer.name, layer.backend, layer.clock, layer.needs_input_grad = name, backend, clock, True
        return self

    def filled(self) -> dict[str, Array]:
        """Name -> host copy of every parameter and buffer that has values.  # sync"""
        return {
            f"{prefix}.{name}" if prefix else name: layer.backend.to_host(value.data).copy()
            for prefix, layer in self.named_layers()
            for name, value in vars(layer).items()
            if isinstance(value, Parameter | Buffer) and value.filled
        }

    def state_dict(self) -> dict[str, Array]:
        """Name -> host copy of every parameter and buffer.  # sync"""
        entries: dict[str, Parameter | Buffer] = {**self.parameters(), **self.buffers()}
        return {name: self.backend.to_host(entry.data).copy() for name, entry in entries.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Replace all parameters and buffers; names, shapes and dtypes are checked before the first write.

        Raises:
            CheckpointError: a tensor is missing, unknown, or of another shape or dtype.  Nothing changes.
        """
        if not isinstance(state, Mapping):
            raise UsageError(f"load_state_dict({in_short(state)}): give name -> array, as state_dict() does")
        entries: dict[str, Parameter | Buffer] = {**self.parameters(), **self.buffers()}
        if missing := [name for name in entries if name not in state]:
            raise CheckpointError(f"tensor {missing[0]!r} is missing ({len(missing)} missing in all)")
        if extra := [name for name in state if name not in entries]:
            raise CheckpointError(f"tensor {extra[0]!r} is not part of this model ({len(extra)} too many)")
        for name, entry in entries.items():
            got = tuple(getattr(state[name], "shape", ())), getattr(state[name], "dtype", type(state[name]).__name__)
            if got != (entry.shape, entry.data.dtype):
                raise CheckpointError(
                    f"tensor {name!r} is {got[1]} {got[0]}, the model wants {entry.data.dtype} {entry.shape}"
                )
        for name, entry in entries.items():
            entry.data[...] = self.backend.to_device(state[name])

    def matching(self, state: Mapping[str, Array]) -> dict[str, str]:
        """Name of every parameter and buffer -> TAKEN where the state's fits, or why it does not."""
        entries: dict[str, Parameter | Buffer] = {**self.parameters(), **self.buffers()}
        report = {}
        for name, entry in entries.items():
            theirs = tuple(getattr(state.get(name), "shape", ()))
            differs = f"{sizes(entry.shape)} here, {sizes(theirs)} there"
            report[name] = MISSING if name not in state else TAKEN if theirs == entry.shape else differs
        return report

    def load_matching(self, state: Mapping[str, Array]) -> dict[str, str]:
        """Take the parameters and buffers that fit by name and shape; the others keep their values.

        A model that is to be trained takes them by ``Trainer.start_from``, which knows which ones they are.

        Returns:
            Name -> ``TAKEN``, ``MISSING``, or the two shapes.
        """
        if not isinstance(state, Mapping):
            raise UsageError(f"load_matching({in_short(state)}): give name -> array, as state_dict() does")
        entries: dict[str, Parameter | Buffer] = {**self.parameters(), **self.buffers()}
        report = self.matching(state)
        taken = [name for name, reason in report.items() if reason == TAKEN]
        for name in taken:
            dtype = str(getattr(state[name], "dtype", ""))
            if not dtype.startswith(("float", "int", "uint")):
                raise UsageError(f"tensor {name!r} is {dtype or in_short(state[name])}: give an array of numbers")
            largest = float(abs(state[name]).max()) if state[name].size else 0.0
            if not largest <= LARGEST_WEIGHT:
                raise NotANumberError(f"tensor {name!r} has values up to {largest:g}: start from another model")
        for name in taken:
            entries[name].data[...] = self.backend.to_device(state[name])
        return report


TAKEN, MISSING = "taken", "not in the file"
LARGEST_WEIGHT = 3e38  # of float32


def sizes(shape: Shape) -> str:
    """A shape in a message: 64 x 3 x 3 x 3."""
    return " x ".join(map(str, shape)) or "a number"


def starts(names: Collection[str]) -> list[str]:
    """The patterns by which these dotted names are most often meant: "features.*", "features.0.*", ..., and they."""
    parts = [name.split(".") for name in names]
    return list(dict.fromkeys(".".join([*words[:i], "*"]) for words in parts for i in range(1, len(words)))) + [*names]
