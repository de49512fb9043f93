"""Every row of the GPU's table on a GPU, against its op in float64 on the CPU."""

import numpy as np
import pytest
from gpu_samples import EXACT, SAMPLES, STORED, close, halved, result_types, stored_between
from outcomes import doubled, outcome, parts

from gpucnn.data.augment.crop_flip import gather_augment
from gpucnn.devices import get_backend
from gpucnn.layers import dropout

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device():
    return get_backend("gpu")


def on_device(device, op, args) -> list[np.ndarray]:
    """What the backend returns and changes, back on the host."""
    moved = [device.to_device(a) if isinstance(a, np.ndarray) else a for a in args]
    result = device.run(op, *moved)
    return [device.to_host(part) for part in parts(op, moved, result)]


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_parity(sample, storage, device) -> None:
    op, args = sample.op, sample.arguments()
    if storage == "float16":
        if op not in STORED:
            pytest.skip("stays in float32")
        args = halved(op, args)
    got = on_device(device, op, args)
    assert [part.dtype for part in got] == result_types(op, args, len(got))
    for part, wanted in zip(got, outcome(op, op, doubled(args)), strict=True):
        close(part, wanted, 2e-2 * stored_between(op, args))
    if op in EXACT and storage == "float32":
        for part, wanted in zip(got, outcome(op, op, args), strict=True):
            np.testing.assert_array_equal(part, wanted)
    for part, again in zip(got, on_device(device, op, args), strict=True):
        assert part.tobytes() == again.tobytes()


def test_a_replayed_graph_reads_the_step_anew(device) -> None:
    cupy = device.xp
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x, step = cupy.ones(1000, cupy.float32), cupy.zeros((), cupy.int64)
        device.run(dropout.dropout, x, 0.5, 1, 2, step)  # compiled before the capture
        stream.begin_capture()
        y = device.run(dropout.dropout, x, 0.5, 1, 2, step)
        graph = stream.end_capture()
        for now in (0, 3):
            step.fill(now)
            graph.launch(stream)
            wanted = dropout.dropout(np.ones(1000, np.float32), 0.5, 1, 2, now)
            np.testing.assert_array_equal(device.to_host(y), wanted)


def test_a_batch_in_float16(device) -> None:
    from gpucnn.kernels.gpu import augment

    for sample in (s for s in SAMPLES if s.op is gather_augment):
        images, index, flip, shift, *how = (
            device.to_device(a) if isinstance(a, np.ndarray) else a for a in sample.arguments()
        )
        moved = (images, index, (flip, shift), *how)
        got = device.to_host(augment.gather(*moved, dtype="float16"))
        np.testing.assert_array_equal(got, gather_augment(*sample.arguments()).astype(np.float16))
