"""PyTorch's float32 counterpart of each op: the same arguments, the same list of results, as far as it has them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from gpucnn import losses, optim
from gpucnn.layers import (
    activations,
    batchnorm,
    containers,
    conv2d,
    dropout,
    fusion,
    gelu,
    groupnorm,
    linear,
    pooling,
    softmax,
)
from gpucnn.layers.scale import scaled
from gpucnn.optim import averages, loss_scale

Op = Callable[..., Any]


def first(x: torch.Tensor) -> torch.Tensor:
    """(N,H,W,C) -> (N,C,H,W), or (M,C) as it is."""
    return x.movedim(-1, 1) if x.ndim > 2 else x


def last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1) if x.ndim > 2 else x


def bordered(x: torch.Tensor, padding: Any, value: float = 0.0) -> torch.Tensor:
    (top, bottom), (left, right) = padding
    return F.pad(first(x), (left, right, top, bottom), value=value)


def convolved(x: Any, w: Any, b: Any, stride: Any, padding: Any) -> torch.Tensor:
    return last(F.conv2d(bordered(x, padding), first(w), b, stride))


def grouped(x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> torch.Tensor:
    return last(F.conv2d(bordered(x, padding), first(w), b, stride, 0, dilation, groups))


def max_pooled(x: Any, kernel: Any, stride: Any, padding: Any) -> torch.Tensor:
    return last(F.max_pool2d(bordered(x, padding, -float("inf")), kernel, stride))


def avg_pooled(x: Any, kernel: Any, stride: Any, padding: Any) -> torch.Tensor:
    return last(F.avg_pool2d(bordered(x, padding), kernel, stride))


def normalised(x: Any, scale: Any, shift: Any, eps: float) -> torch.Tensor:
    return last(F.batch_norm(first(x), None, None, scale, shift, True, 0.1, eps))


def with_moments(y: Any, x: Any) -> Any:
    rows = x.reshape(-1, x.shape[-1])
    return y, rows.mean(0), rows.var(0, correction=0)


def group_normalised(x: Any, scale: Any, shift: Any, groups: int, eps: float) -> torch.Tensor:
    return last(F.group_norm(first(x), groups, scale, shift, eps))


def with_group_moments(y: Any, x: Any, groups: int) -> Any:
    values = groupnorm.in_groups(x, groups)
    return y, values.mean((1, 3)), values.var((1, 3), correction=0)


def evaluated(x: Any, scale: Any, shift: Any, mean: Any, var: Any, eps: float) -> torch.Tensor:
    return last(F.batch_norm(first(x), mean, var, scale, shift, False, 0.1, eps))


def back(function: Op, dy: torch.Tensor, *inputs: torch.Tensor) -> Any:
    """The gradients of a function at these inputs."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    grads = torch.autograd.grad(function(*leaves), leaves, dy)
    return grads if len(grads) > 1 else grads[0]


def normalised_back(dy: Any, x: Any, scale: Any, shift: Any, eps: float, after: Op) -> Any:
    """Gradients of batch norm and what comes after it, with the batch's own statistics."""
    return back(lambda x, scale, shift: after(normalised(x, scale, shift, eps)), dy, x, scale, shift)


def entropy(logits: Any, labels: Any, smoothing: float = 0.0) -> Any:
    loss = lambda z: F.cross_entropy(z, labels, label_smoothing=smoothing)  # noqa: E731
    return loss(logits), back(loss, torch.tensor(1.0), logits)


def binary(logits: Any, targets: Any) -> Any:
    loss = lambda z: F.binary_cross_entropy_with_logits(z, targets, reduction="sum") / len(z)  # noqa: E731
    return loss(logits), back(loss, torch.tensor(1.0), logits)


def squared(y: Any, targets: Any) -> Any:
    return F.mse_loss(y, targets), back(lambda y: F.mse_loss(y, targets), torch.tensor(1.0), y)


def sgd(w: Any, g: Any, lr: float, decay: float) -> Any:
    return w.add(g.add(w, alpha=decay), alpha=-lr)


def momentum(w: Any, g: Any, v: Any, lr: float, mu: float, decay: float, nesterov: bool) -> Any:
    g = g.add(w, alpha=decay)
    v = v.mul(mu).add(g)
    return w.add(g.add(v, alpha=mu) if nesterov else v, alpha=-lr), v


def adam(
    w: Any, g: Any, m: Any, v: Any, lr: float, b1: float, b2: float, eps: float, decay: float, decoupled: bool, t: int
) -> Any:
    """``torch.optim.Adam`` and ``AdamW`` of one tensor."""
    w, g = (w.mul(1 - lr * decay), g) if decoupled else (w, g.add(w, alpha=decay))
    m, v = m.lerp(g, 1 - b1), v.mul(b2).addcmul(g, g, value=1 - b2)
    below = (v.sqrt() / (1 - b2**t) ** 0.5).add(eps)
    return w.addcdiv(m, below, value=-lr / (1 - b1**t)), m, v


def dropped(x: Any, rate: float, *draw: Any) -> Any:
    keep = torch.from_numpy(dropout.dropout(np.ones(x.shape, np.float32), rate, *draw) != 0)
    return torch.where(keep, x / (1 - rate), 0)


def tanh_gelu(x: Any) -> Any:
    return F.gelu(x, approximate="tanh")


def relu_pooled(x: Any, *how: Any) -> Any:
    return max_pooled(F.relu(x), *how)


def moved(mean: Any, var: Any, new: Any, spread: Any, momentum: float, correction: float) -> Any:
    keep = 1 - momentum
    return keep * mean + momentum * new, keep * var + momentum * correction * spread


def images(shape: Any) -> torch.Tensor:
    return torch.zeros(shape)


TORCH: dict[Op, Op] = {
    conv2d.conv2d: convolved,
    conv2d.conv2d_input_grad: lambda dy, w, shape, *how: back(lambda x: convolved(x, w, None, *how), dy, images(shape)),
    conv2d.conv2d_weight_grad: lambda dy, x, shape, *how: back(
        lambda w: convolved(x, w, None, *how), dy, images(shape)
    ),
    conv2d.grouped_conv2d: grouped,
    conv2d.grouped_conv2d_input_grad: lambda dy, w, shape, *how: back(
        lambda x: grouped(x, w, None, *how), dy, images(shape)
    ),
    conv2d.grouped_conv2d_weight_grad: lambda dy, x, shape, *how: back(
        lambda w: grouped(x, w, None, *how), dy, images(shape)
    ),
    conv2d.bias_grad: lambda dy: dy.reshape(-1, dy.shape[-1]).sum(0),
    linear.linear: F.linear,
    linear.linear_input_grad: lambda dy, w: dy @ w,
    linear.linear_weight_grad: lambda dy, x: dy.T @ x,
    batchnorm.batchnorm: lambda x, *rest: with_moments(normalised(x, *rest), x),
    batchnorm.batchnorm_eval: evaluated,
    batchnorm.batchnorm_grad: lambda dy, x, scale, mean, var, eps: normalised_back(
        dy, x, scale, torch.zeros_like(scale), eps, lambda y: y
    ),
    batchnorm.batchnorm_relu: lambda x, *rest: with_moments(F.relu(normalised(x, *rest)), x),
    batchnorm.batchnorm_relu_eval: lambda *args: F.relu(evaluated(*args)),
    batchnorm.batchnorm_relu_grad: lambda dy, x, scale, shift, mean, var, eps: normalised_back(
        dy, x, scale, shift, eps, F.relu
    ),
    fusion.batchnorm_relu6: lambda x, *rest: with_moments(F.relu6(normalised(x, *rest)), x),
    fusion.batchnorm_relu6_eval: lambda *args: F.relu6(evaluated(*args)),
    fusion.batchnorm_relu6_grad: lambda dy, x, scale, shift, mean, var, eps: normalised_back(
        dy, x, scale, shift, eps, F.relu6
    ),
    batchnorm.move_running: moved,
    groupnorm.groupnorm: lambda x, scale, shift, groups, eps: with_group_moments(
        group_normalised(x, scale, shift, groups, eps), x, groups
    ),
    groupnorm.groupnorm_grad: lambda dy, x, scale, mean, var, groups, eps: back(
        lambda x, scale, shift: group_normalised(x, scale, shift, groups, eps), dy, x, scale, torch.zeros_like(scale)
    ),
    activations.relu: F.relu,
    activations.relu_grad: lambda dy, x: back(F.relu, dy, x),
    activations.relu6: F.relu6,
    activations.relu6_grad: lambda dy, x: back(F.relu6, dy, x),
    activations.leaky_relu: F.leaky_relu,
    activations.leaky_relu_grad: lambda dy, x, slope: back(lambda x: F.leaky_relu(x, slope), dy, x),
    activations.tanh: torch.tanh,
    activations.tanh_grad: lambda dy, y: dy * (1 - y * y),
    activations.sigmoid: torch.sigmoid,
    activations.sigmoid_grad: lambda dy, y: dy * (1 - y) * y,
    activations.silu: F.silu,
    activations.silu_grad: lambda dy, x: back(F.silu, dy, x),
    activations.elu: F.elu,
    activations.elu_grad: lambda dy, x, alpha: back(lambda x: F.elu(x, alpha), dy, x),
    activations.hardsigmoid: F.hardsigmoid,
    activations.hardsigmoid_grad: lambda dy, x: back(F.hardsigmoid, dy, x),
    activations.hardswish: F.hardswish,
    activations.hardswish_grad: lambda dy, x: back(F.hardswish, dy, x),
    gelu.gelu: F.gelu,
    gelu.gelu_grad: lambda dy, x: back(F.gelu, dy, x),
    gelu.gelu_tanh: tanh_gelu,
    gelu.gelu_tanh_grad: lambda dy, x: back(tanh_gelu, dy, x),
    softmax.softmax: lambda z: torch.softmax(z, -1),
    softmax.softmax_grad: lambda dy, y: y * (dy - (dy * y).sum(-1, keepdim=True)),
    scaled: lambda x, factor: x * factor,
    containers.add: torch.add,
    containers.add_relu: lambda a, b: F.relu(a + b),
    dropout.dropout: dropped,
    pooling.max_pool2d: max_pooled,
    pooling.max_pool2d_grad: lambda dy, x, *how: back(lambda x: max_pooled(x, *how), dy, x),
    pooling.avg_pool2d: avg_pooled,
    pooling.avg_pool2d_grad: lambda dy, shape, *how: back(lambda x: avg_pooled(x, *how), dy, images(shape)),
    pooling.global_avg_pool2d: lambda x: x.mean((1, 2)),
    pooling.global_avg_pool2d_grad: lambda dy, shape: back(lambda x: x.mean((1, 2)), dy, images(shape)),
    fusion.relu_max_pool2d: relu_pooled,
    fusion.relu_max_pool2d_grad: lambda dy, x, *how: back(lambda x: relu_pooled(x, *how), dy, x),
    fusion.batchnorm_relu_max_pool2d: lambda x, scale, shift, eps, *how: with_moments(
        relu_pooled(normalised(x, scale, shift, eps), *how), x
    ),
    fusion.batchnorm_relu_max_pool2d_eval: lambda x, a, b, mean, var, eps, *how: relu_pooled(
        evaluated(x, a, b, mean, var, eps), *how
    ),
    fusion.batchnorm_relu_max_pool2d_grad: lambda dy, x, scale, shift, mean, var, eps, *how: normalised_back(
        dy, x, scale, shift, eps, lambda y: relu_pooled(y, *how)
    ),
    losses.softmax_cross_entropy: entropy,
    losses.sigmoid_binary_cross_entropy: binary,
    losses.mean_squared_error: squared,
    optim.sgd_update: sgd,
    optim.momentum_update: momentum,
    optim.adam_update: adam,
    averages.lerp: torch.lerp,
    loss_scale.unscale: lambda g, finite, scale: (g / scale, torch.isfinite(g).all()),
}


def by_torch(op: Op, args: tuple[Any, ...]) -> list[np.ndarray]:
    """What PyTorch makes of these arguments of an op."""
    given = [torch.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in args]
    given = [g.long() if isinstance(g, torch.Tensor) and not g.is_floating_point() and g.dtype != torch.bool else g
             for g in given]  # fmt: skip
    made = TORCH[op](*given)
    return [part.detach().numpy() for part in (made if isinstance(made, tuple) else (made,))]
