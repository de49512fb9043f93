"""Try to lose or to corrupt a checkpoint, and count the outcomes.

    python benchmarks/checkpoint_torture.py --kills 10000 --mutations 100000 --sealed 100000

kills      A child process saves over a checkpoint and is killed (SIGKILL) at each system call of the save in
           turn, in the middle of a write, or at a random time.  Then last.h5 and previous.h5 must be
           checkpoints that were saved, bit for bit.
mutations  A file with flipped bits, zeroed or exchanged blocks, cut or lengthened.  It must be refused.
sealed     The same, with the digest recomputed, as an attacker would.  It must be refused, or load with the
           names, shapes and types of the model and finite numbers.

Prints one JSON object of counts; exits with 1 where something was lost, crashed, hung or loaded wrongly.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gpucnn.checkpoint import Checkpoint, durable, load_checkpoint, save_checkpoint
from gpucnn.checkpoint.envelope import USER_BLOCK, user_block
from gpucnn.errors import CheckpointError

CALLS = ("open", "write", "fsync", "link", "replace", "unlink", "close")
SLOW = 2.0  # seconds


def checkpoint(seed: int) -> Checkpoint:
    """A checkpoint with all kinds of contents, 30 kB."""
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (8, 3, 3, 4), "bn.scale": (8,), "fc.weight": (10, 200), "fc.bias": (10,)}
    parameters = {name: rng.standard_normal(shape, dtype="float32") for name, shape in shapes.items()}
    return Checkpoint(
        parameters,
        {"bn.running_mean": rng.standard_normal(8, dtype="float32")},
        {"velocity": {name: array / 2 for name, array in parameters.items()}},
        progress={"epoch": 3, "step": 30, "loss_sum": 0.25},
        history={"epoch": [1, 2, 3], "test_loss": [0.3, 0.2, 0.1]},
        config="[model]\nname = 'x'\n",
        dataset_digest="ab" * 32,
        seed=seed,
    )


# -- kills --------------------------------------------------------------------------------------------------


class Killer:
    """Replaces ``os`` in the code that saves: counts its calls and kills the process at one of them."""

    def __init__(self, fatal: int, after: bool) -> None:
        self.fatal, self.after, self.calls = fatal, after, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return (lambda *args, **kwargs: self._call(real, *args, **kwargs)) if name in CALLS else real

    def _call(self, real: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.fatal:
            if real is os.write:
                os.write(args[0], args[1][: len(args[1]) // 2])
            elif self.after:
                real(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)


def child(work: Callable[[], object], seconds: float = 0.0) -> int:
    """Run work in a fork, killed after ``seconds`` if that is not 0; returns its wait status."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            work()
        except BaseException:
            os._exit(70)
        os._exit(0)
    if seconds:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def campaign_kills(folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Half of the kills at each call in turn, half at random times of a process that saves in a loop."""
    durable.CHUNK = 4096  # several writes for a file
    images = [checkpoint(seed) for seed in (0, 1)]
    path, previous = folder / "last.h5", folder / "previous.h5"
    digests = []
    for image in images:
        save_checkpoint(path, image)
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    counter = Killer(0, False)
    durable.os = counter  # type: ignore[assignment]
    save_checkpoint(path, images[0], keep=previous)
    calls = counter.calls
    result: Counter[str] = Counter(system_calls_of_a_save=calls)

    def saves_once(number: int, image: Checkpoint) -> Callable[[], None]:
        def work() -> None:
            durable.os = Killer(number % calls + 1, number // calls % 2 == 1)  # type: ignore[assignment]
            save_checkpoint(path, image, keep=previous)

        return work

    def saves_forever() -> None:
        durable.os = os
        while True:
            for image in images:
                save_checkpoint(path, image, keep=previous)

    for number in range(count):
        if number % 2:
            child(saves_forever, rng.uniform(0.0005, 0.01))
        else:
            child(saves_once(number // 2, images[number // 2 % 2]))
        result["kills"] += 1
        for file in (path, previous):
            try:
                load_checkpoint(file)
                known = hashlib.sha256(file.read_bytes()).hexdigest() in digests
            except CheckpointError:
                known = False
            result["lost"] += not known
        result["leftovers_seen"] += len([name for name in os.listdir(folder) if name.endswith(".tmp")])
        durable.os = os
        if number % 10 == 9:  # the next complete save must clean up
            save_checkpoint(path, images[number // 10 % 2], keep=previous)
            result["leftovers_not_cleaned"] += len(os.listdir(folder)) - 2
    durable.os = os
    return dict(result)


# -- mutations ----------------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """One kind of damage."""
    changed = bytearray(data)
    kind = rng.choice(["bit", "bytes", "zeros", "exchange", "cut", "lengthen"])
    start = rng.randrange(len(data))
    size = min(rng.choice([1, 8, 64, 512, 4096]), len(data) - start)
    if kind == "bit":
        for _ in range(rng.choice([1, 1, 1, 2, 16])):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "bytes":
        size = min(size, 8)
        changed[start : start + size] = rng.choice([rng.randbytes(size), b"\xff" * size, data[:size]])
    elif kind == "zeros":
        changed[start : start + size] = bytes(size)
    elif kind == "exchange":
        other = rng.randrange(len(data) - size + 1)
        changed[start : start + size] = data[other : other + size]
    elif kind == "cut":
        del changed[start:]
    else:
        changed += rng.randbytes(size)
    return kind, bytes(changed)


def expected(config: str) -> dict[str, dict[str, tuple[tuple[int, ...], str]]]:
    """Tensors of the model."""
    model = checkpoint(0)
    return {
        "parameters": {name: (array.shape, "float32") for name, array in model.parameters.items()},
        "buffers": {name: (array.shape, "float32") for name, array in model.buffers.items()},
    }


def read(path: Path) -> str:
    """The outcome of loading a file: "refused", "loaded" or the name of an unexpected error."""
    try:
        load_checkpoint(path, expected)
    except CheckpointError:
        return "refused"
    except Exception as error:
        return type(error).__name__
    return "loaded"


def campaign_mutations(folder: Path, count: int, rng: random.Random, sealed: bool) -> dict[str, Any]:
    """Damage anywhere; where ``sealed``, damage to tensors alone loads, since any finite numbers are valid."""
    path = folder / "mutated.h5"
    save_checkpoint(path, checkpoint(0))
    whole = path.read_bytes()
    before = whole[USER_BLOCK:] if sealed else whole
    result: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(count):
        kind, data = "", before
        while data == before:  # zeros over zeros are no damage
            kind, data = mutate(before, rng)
        path.write_bytes(user_block(data) + data if sealed else data)
        start = time.perf_counter()
        outcome = read(path)
        slowest = max(slowest, time.perf_counter() - start)
        result[outcome] += 1
        result[f"{kind} {outcome}"] += 1
    return {**dict(sorted(result.items())), "slowest_ms": round(1e3 * slowest, 1)}


def main() -> int:
    """Run the campaigns given by the flags."""
    parser = argparse.ArgumentParser(description="Try to lose or to corrupt a checkpoint, and count.")
    for name in ("kills", "mutations", "sealed"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.kills:
            (folder / "kills").mkdir()
            found["kills"] = campaign_kills(folder / "kills", args.kills, rng)
        if args.mutations:
            found["mutations"] = campaign_mutations(folder, args.mutations, rng, sealed=False)
        if args.sealed:
            found["sealed"] = campaign_mutations(folder, args.sealed, rng, sealed=True)
    print(json.dumps(found, indent=2))
    return int(failed(found))


def failed(found: dict[str, dict[str, Any]]) -> bool:
    """Whether a guarantee was broken."""
    kills = found.get("kills", {})
    bad = bool(kills.get("lost") or kills.get("leftovers_not_cleaned"))
    for name in ("mutations", "sealed"):
        counts = found.get(name, {})
        expected = {"refused", "slowest_ms"} | ({"loaded"} if name == "sealed" else set())
        bad |= any(key not in expected and " " not in key for key in counts)
        bad |= counts.get("slowest_ms", 0.0) > 1e3 * SLOW
    return bad


if __name__ == "__main__":
    sys.exit(main())
