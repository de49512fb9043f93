"""The speedrun recipes as a whole, against a loop in PyTorch that is written from the paper's description."""

from pathlib import Path

import numpy as np
import pytest

from gpucnn.data import Dataset
from gpucnn.devices import get_backend
from gpucnn.layers.whitening import whiten
from gpucnn.runs.build import build_trainer, resolve
from gpucnn.runs.config import Config
from gpucnn.training.trainer import Trainer

CONFIGS = Path(__file__).resolve().parents[2] / "gpucnn" / "recipes"
STEPS, BATCH, TRAINS_BIAS = 6, 8, 2


def small_trainer(name: str) -> tuple[Trainer, Dataset]:
    """The recipe on noise: six steps of it, three an epoch, the first bias trained for two of them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH * 3, 16, 16, 3)).astype(np.uint8)
    dataset = Dataset("noise", images, rng.integers(0, 10, len(images)).astype(np.uint8), tuple("abcdefghij"))
    changes = {
        "train": {"batch_size": BATCH, "max_steps": STEPS, "epochs": 2},
        "optimizer": {"groups": {"whiten": {"epochs": TRAINS_BIAS / 3}}},
    }
    trainer = build_trainer(
        resolve(Config.from_file(CONFIGS / f"cifar10_{name}.toml").updated(changes), dataset),
        dataset,
        get_backend("cpu"),
    )
    whiten(trainer.model, dataset.images, dataset.mean, dataset.std)
    return trainer, dataset


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "rate", "shrink", "convolutions"),
    [("speedrun94", 11.5, 0.0153, 6), ("speedrun95", 10.0, 0.0153, 6), ("speedrun96", 9.0, 0.012, 9)],
)
def test_six_steps_are_those_of_the_paper(name: str, rate: float, shrink: float, convolutions: int) -> None:
    import torch

    from gpucnn.bench.pytorch import to_torch

    trainer, dataset = small_trainer(name)
    theirs = to_torch(trainer.model).train()  # in float32, as ours
    pairs = list(zip(trainer.model.parameters().items(), theirs.parameters(), strict=True))
    norm, others = [], []
    for (_, parameter), tensor in pairs:
        tensor.requires_grad_(not parameter.frozen)
        if not parameter.frozen:
            (norm if parameter.group == "norm" else others).append(tensor)
    assert [len(norm), len(others)] == [convolutions, convolutions + 2]  # shifts; besides, the head and the first bias

    scale = 1024 * (1 + 1 / (1 - 0.85))
    lr, decay = rate / scale, shrink * 1024 / scale
    groups = [
        {"params": norm, "lr": 64 * lr, "weight_decay": decay / (64 * lr)},
        {"params": others, "lr": lr, "weight_decay": decay / lr},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.85, nesterov=True)
    factor = lambda step: float(np.interp(step, [0, int(0.23 * STEPS), STEPS], [0.2, 1, 0.07]))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    followed = [tensor for tensor in theirs.state_dict().values() if tensor.dtype == torch.float32]
    slow = [tensor.clone() for tensor in followed]

    def look(alpha: float) -> None:
        for kept, tensor in zip(slow, followed, strict=True):
            kept.lerp_(tensor, 1 - alpha)
            tensor.copy_(kept)

    step, bias = 0, dict(theirs.named_parameters())["0.0.bias"]
    batches = trainer.loader(dataset, training=True)
    for x, labels in (batch for epoch in range(2) for batch in batches.epoch(epoch)):
        bias.requires_grad_(step < TRAINS_BIAS)
        logits = theirs(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
        target = torch.from_numpy(labels)
        loss = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.2, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        trainer.train_step(x, labels)
        step += 1
        if step % 5 == 0:
            look(0.95**5 * (step / STEPS) ** 3)
    look(1.0)

    assert trainer.clock.step == step == STEPS
    for (name, parameter), tensor in pairs:
        wanted = tensor.detach().numpy()
        wanted = wanted.transpose(0, 2, 3, 1) if wanted.ndim == 4 else wanted
        np.testing.assert_allclose(parameter.data, wanted, atol=1e-3 * abs(wanted).max(), err_msg=name)
    statistics = [
        tensor.numpy() for name, tensor in theirs.named_buffers() if name.split(".")[-1].startswith("running")
    ]
    for (name, buffer), wanted in zip(trainer.model.buffers().items(), statistics, strict=True):
        np.testing.assert_allclose(buffer.data, wanted, atol=1e-3 * abs(wanted).max(), err_msg=name)
