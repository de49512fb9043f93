"""One lecture page per file: equations, the functions that compute them, and the thin layer around them."""

from gpucnn.layers.activations import ELU, Hardsigmoid, Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, SiLU, Tanh
from gpucnn.layers.base import Layer
from gpucnn.layers.batchnorm import BatchNorm
from gpucnn.layers.containers import Concat, Gate, Residual, Sequential, SqueezeExcite
from gpucnn.layers.conv2d import Conv2D
from gpucnn.layers.conv_transpose2d import ConvTranspose2D
from gpucnn.layers.dropout import Dropout, Dropout2D, StochasticDepth
from gpucnn.layers.flatten import Flatten
from gpucnn.layers.fusion import BatchNormReLU
from gpucnn.layers.gelu import GELU
from gpucnn.layers.groupnorm import GroupNorm
from gpucnn.layers.layernorm import LayerNorm
from gpucnn.layers.linear import Linear
from gpucnn.layers.pooling import AdaptiveAvgPool2D, AvgPool2D, GlobalAvgPool2D, MaxPool2D
from gpucnn.layers.scale import Scale
from gpucnn.layers.softmax import Softmax
from gpucnn.layers.upsample import Upsample
from gpucnn.layers.whitening import Whitening

__all__ = [
    "ELU",
    "GELU",
    "AdaptiveAvgPool2D",
    "AvgPool2D",
    "BatchNorm",
    "BatchNormReLU",
    "Concat",
    "Conv2D",
    "ConvTranspose2D",
    "Dropout",
    "Dropout2D",
    "Flatten",
    "Gate",
    "GlobalAvgPool2D",
    "GroupNorm",
    "Hardsigmoid",
    "Hardswish",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2D",
    "ReLU",
    "ReLU6",
    "Residual",
    "Scale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SqueezeExcite",
    "StochasticDepth",
    "Tanh",
    "Upsample",
    "Whitening",
]
