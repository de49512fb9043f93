"""Resuming: which settings may change, and how those that may not are named."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpucnn.checkpoint import Checkpoint
from gpucnn.errors import UsageError
from gpucnn.runs.config import Config
from gpucnn.runs.resume import Resumed, refuse_changes

DIGEST, TEST_DIGEST = "d" * 64, "f" * 64
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
        test_digest=TEST_DIGEST,
        seed=0,
    )
    return Resumed(Path("last.h5"), checkpoint, Config.from_toml(OLD))


def test_equal_settings_in_the_old_and_the_new_form_go_on(resumed: Resumed) -> None:
    new = Config.from_toml(
        "[data.augmentation]\nflip = true\ncrop = 2\n[optimizer.groups.bias]\nepochs = 2\n[train]\nepochs = 20\n"
        "[run]\nthreads = 1\n"
    )
    refuse_changes(resumed, new, DIGEST, TEST_DIGEST)


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
        refuse_changes(resumed, resumed.config.with_setting(change), DIGEST, TEST_DIGEST)


def test_other_images_are_refused(resumed: Resumed) -> None:
    with pytest.raises(UsageError, match="trained on other images"):
        refuse_changes(resumed, resumed.config, "e" * 64, TEST_DIGEST)
    with pytest.raises(UsageError, match="tested on other images"):
        refuse_changes(resumed, resumed.config, DIGEST, "e" * 64)


def test_a_checkpoint_of_an_earlier_version_does_not_know_the_test_images(resumed: Resumed) -> None:
    old = replace(resumed, checkpoint=replace(resumed.checkpoint, test_digest=""))
    refuse_changes(old, old.config, DIGEST, "e" * 64)


@pytest.mark.parametrize("change", ["train.epochs=30", "train.max_steps=7", "train.patience=3", "train.tta='flip'"])
def test_a_run_may_become_longer_or_shorter(change: str, resumed: Resumed) -> None:
    refuse_changes(resumed, resumed.config.with_setting(change), DIGEST, TEST_DIGEST)
