"""The autoencoder: the example of its page, its shapes, PyTorch."""

from pathlib import Path

import numpy as np
import pytest
from readme import blocks

from gpucnn import models
from gpucnn.errors import ShapeError, UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_the_example_of_its_page_learns_to_give_digits_back(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "page"}
    (code,) = blocks("python", "## An autoencoder", PAGE)
    exec(compile(code, "docs/models.md", "exec"), names)
    words = capsys.readouterr().out.split()
    assert words[:7] == ["(2,", "2,", "4)", "of", "(8,", "8,", "1):"]
    error, variance = float(words[7]), float(words[-1])
    assert error < 0.3 * variance  # the best image for all alike has 1


def test_shapes_and_what_does_not_fit() -> None:
    model = models.autoencoder((28, 12, 3), width=2, code=5)
    assert model.output_shape((28, 12, 3)) == (28, 12, 3)
    assert model.children()["encoder"].output_shape((28, 12, 3)) == (7, 3, 5)
    for shape in ((30, 28, 1), (28, 28)):
        with pytest.raises(ShapeError, match="multiples of 4"):
            models.autoencoder(shape)
    with pytest.raises(UsageError, match="code = 0"):
        models.autoencoder((8, 8, 1), code=0)


@pytest.mark.torch
def test_forward_is_pytorchs() -> None:
    import torch

    from gpucnn.bench.pytorch import to_torch

    ours = models.autoencoder((8, 8, 2), width=3, code=2).initialize(1)
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 2)).astype(np.float32)
    with torch.no_grad():
        theirs = to_torch(ours)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(ours(x), theirs.permute(0, 2, 3, 1), atol=1e-5)
