"""Contenders in their own processes: what they report, and from when on the first step is timed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gpucnn.cli.benchmark
from gpucnn.bench import race
from gpucnn.bench.contender import timed
from gpucnn.bench.race import Contender, cold_and_warm
from gpucnn.bench.task import Task
from gpucnn.bench.timers import Clock
from gpucnn.cli.main import main

TASK = Task("reference", "lenet5", (28, 28, 1), 2, threads=1)
WORDS = ["benchmark", "--model", "lenet5", "--input-shape", "28x28x1", "-b", "2", "--device", "reference"]


def test_new_memory_is_counted() -> None:
    idle = timed(lambda: None, 20)
    assert idle["page_faults"] < 5
    assert idle["seconds"] >= 0
    size = 64 << 20  # too large for malloc to keep, so each array is mapped anew
    busy = timed(lambda: np.zeros(size, np.uint8).fill(1), 3)
    assert busy["page_faults"] >= size / (2 << 20)  # pages may be huge: 2 MiB
    assert busy["peak_mib"] >= 64


def test_the_time_of_a_step_is_the_median_between_two_marks() -> None:
    class Stopped(Clock):
        """It shows a time that only the steps change."""

        def mark(self) -> float:
            return now

    now, taken = 5.0, iter([1.0, 16.0, 2.0, 8.0, 4.0])

    def step() -> None:
        nonlocal now
        now += next(taken)

    assert timed(step, 5, Stopped())["seconds"] == 4.0


def test_a_race_says_everything_of_everyone() -> None:
    result = race.race([Contender("one", TASK), Contender("two", TASK)], 2)
    for kind in (result.milliseconds, result.first_step, result.peak_mib):
        assert set(kind) == {"one", "two"}
        assert min(kind.values()) > 0
    assert set(result.page_faults) == {"one", "two"}
    assert min(result.page_faults.values()) >= 0
    low, middle, high = result.ratios["default malloc"]
    assert 0 < low <= middle <= high


def test_compiled_pytorch_is_a_baseline_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr(race, "find_spec", lambda name: True)
    names = [racer.name for racer in race.contenders(TASK, tuned=False, compiled=True)]
    assert names[1:3] == ["pytorch contiguous", "pytorch contiguous, compiled"]
    assert len(names) == 5
    racers = [
        Contender("ours", TASK),
        Contender("eager", TASK),
        Contender("compiled", replace(TASK, compiled="default")),
    ]
    for racer in racers:  # none of them PyTorch
        racer.task = replace(racer.task, framework="reference")
    result = race.race(racers, 1)
    assert set(result.ratios) == {"default malloc", "compiled"}


def test_the_first_step_is_timed_from_the_start_of_the_process(tmp_path: Path) -> None:
    # an interpreter that takes its time, long before any of our code runs
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(1.5)\n")
    path = f"{tmp_path}:{Path(race.__file__).parents[2]}"
    racer = Contender("slow", TASK, {"PYTHONPATH": path})
    racer.start()
    racer.stop()
    assert racer.first_step > 1.5


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    talker = tmp_path / "python"
    talker.write_text("""#!/bin/sh
echo 'Loading kernels'; echo '{"steps": 1, "versions": "two"}'; echo; echo '{"steps": 4, "launches": 3}'; read line
""")
    talker.chmod(0o755)
    racer = Contender("talker", TASK, interpreter=str(talker))
    racer.start()
    racer.stop()
    assert (racer.versions, racer.launches) == ("two", 3)


@pytest.mark.parametrize(("name", "device"), [("cpu", "cpu"), ("gpu", "cuda"), ("gpu:1", "cuda"), ("reference", "cpu")])
def test_pytorch_runs_where_we_do(name, device, monkeypatch) -> None:
    monkeypatch.setattr(race, "find_spec", lambda module: True)
    ours, *theirs = race.contenders(replace(TASK, framework=name))
    assert ours.task.framework == name
    assert {racer.task.device for racer in theirs} == {device}


def test_mixed_precision_is_asked_for_by_name(capsys, monkeypatch) -> None:
    monkeypatch.setattr(race, "find_spec", lambda name: None)
    seen = []
    monkeypatch.setattr(gpucnn.cli.benchmark, "race", lambda racers, rounds: seen.extend(racers))
    monkeypatch.setattr(gpucnn.cli.benchmark, "table", lambda result, rounds: [])
    assert main([*WORDS, "--amp", "fp16"]) == 0
    assert main(WORDS) == 0
    assert [racer.task.precision for racer in seen] == ["float16", "float32"]
    for mode in ("train", "eval"):
        assert main([*WORDS, "--amp", "fp16", "--explain", "--mode", mode]) == 0
        assert "lenet5, batch 2, float16" in capsys.readouterr().out


def test_cold_finds_no_kernels_and_warm_those_of_cold(monkeypatch) -> None:
    seen = []

    class Racer(Contender):
        def start(self) -> None:
            folder = Path(self.environment["XDG_CACHE_HOME"])
            seen.append((folder, [path.name for path in folder.iterdir()]))
            (folder / "compiled").touch()
            self.first_step = 10.0 / len(seen)

        def stop(self) -> None:
            pass

    monkeypatch.setattr(race, "Contender", Racer)
    assert cold_and_warm(replace(TASK, framework="cpu")) == (10.0, 5.0)
    (folder, first), (again, second) = seen
    assert (first, second) == ([], ["compiled"])
    assert folder == again
    assert not folder.exists()


def test_benchmark_shows_page_faults_and_starts(capsys, monkeypatch) -> None:
    monkeypatch.setattr(race, "find_spec", lambda name: None)  # PyTorch takes its time
    assert main([*WORDS, "--rounds", "1", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert set(result["page_faults"]) == set(result["first_step"]) == set(result["milliseconds"])
    assert "gpucnn" in result["page_faults"]
    assert main([*WORDS, "--rounds", "1"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert "page faults a step" in line
    assert "s to the first step" in line


def test_benchmark_shows_cold_and_warm(capsys) -> None:
    assert main([*WORDS, "--cold", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (start,) = found["starts"]
    assert start["task"]["model"] == "lenet5"
    assert min(start["cold_seconds"], start["warm_seconds"]) > 0
    assert main([*WORDS, "--cold"]) == 0
    text = capsys.readouterr().out
    assert "kernels to be compiled" in text
    assert "kernels on disk" in text
