"""Resuming: which settings may change, and how those that may not are named."""

import re
from pathlib import Path

import numpy as np
import pytest

from gpucnn.checkpoint import Checkpoint
from gpucnn.errors import UsageError
from gpucnn.runs.config import Config
from gpucnn.runs.resume import Resumed, refuse_changes

DIGEST = "d" * 64
OLD = """
[data]
flip = true
crop = 2
[optimizer.groups.bias]
epochs = 2
"""


@pytest.fixture
def resumed() -> Resumed:
    checkpoint = Checkpoint(
        parameters={"weight": np.zeros(1, np.float32)},
        buffers={},
        optimizer={},
        averages={},
        progress={},
        history={},
        config=OLD,
        environment="{}",
        dataset_digest=DIGEST,
        seed=0,
    )
    return Resumed(Path("last.h5"), checkpoint, Config.from_toml(OLD))


def test_equal_settings_in_the_old_and_the_new_form_go_on(resumed: Resumed) -> None:
    new = Config.from_toml(
        "[data.augmentation]\nflip = true\ncrop = 2\n[optimizer.groups.bias]\nepochs = 2\n[train]\nepochs = 20\n"
        "[run]\nthreads = 1\n"
    )
    refuse_changes(resumed, new, DIGEST)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.crop=1", "trained with data.augmentation.crop = 2, not 1"),
        ("optimizer.groups.bias.epochs=3", "trained with optimizer.groups.bias.epochs = 2.0, not 3.0"),
        ("optimizer.groups.norm.lr=3", "trained with optimizer.groups.norm.lr = None, not 3.0"),
        ("model.options.dropout=0.5", "trained with model.options.dropout = None, not 0.5"),
    ],
)
def test_a_change_is_named_as_a_user_writes_it(change: str, message: str, resumed: Resumed) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        refuse_changes(resumed, resumed.config.with_setting(change), DIGEST)


def test_other_images_are_refused(resumed: Resumed) -> None:
    with pytest.raises(UsageError, match="trained on other images"):
        refuse_changes(resumed, resumed.config, "e" * 64)
