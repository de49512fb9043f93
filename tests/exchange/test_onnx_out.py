"""ONNX graphs, run by programs that know nothing of gpucnn, against the layers that they come from."""

import json
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

if not find_spec("onnx"):
    pytest.skip("onnx is not installed", allow_module_level=True)

from onnx.reference import ReferenceEvaluator

from gpucnn import layers, models
from gpucnn.checks.gradcheck import LAYERS
from gpucnn.errors import UsageError
from gpucnn.exchange.onnx_out import CONVERTERS, to_onnx
from gpucnn.inference.predict import normalise
from gpucnn.layers import Layer

RUNTIME = find_spec("onnxruntime") is not None

SMALL = {
    "densenet": {"depth": 10},
    "wide_resnet": {"depth": 10, "widen": 1},
    "mobilenet_v2": {"width": 0.25},
}
"""Options of models that are large otherwise."""

LARGER = ("lenet5", "mobilenet_v2", "speedrun94", "speedrun95", "speedrun96")
"""Models that need images of more than 16 x 16 pixels, the second one to be well conditioned."""

MANY = 3_000_000  # parameters, of a net that takes long here


def worn(layer: Layer) -> Layer:
    """A layer with the weights and statistics of one that was trained: none is 0 or 1, some scales are negative."""
    rng = np.random.default_rng(0)
    layer.initialize(1).eval()
    for name, parameter in layer.parameters().items():
        spread = 0.5 if "scale" in name else 0.1
        parameter.data[...] += spread * rng.standard_normal(parameter.shape, dtype=np.float32)
    for name, buffer in layer.buffers().items():
        drawn = rng.standard_normal(buffer.data.shape, dtype=np.float32)
        buffer.data[...] = np.exp(drawn / 2) if name.endswith("var") else drawn / 4
    return layer


def settled(model: Layer, x: np.ndarray) -> Layer:
    """The same with the statistics of these images in batch norm: with others, deep nets lose digits by themselves."""
    for _, layer in model.named_layers():
        if isinstance(layer, layers.BatchNorm):
            layer.momentum = 1.0
    model.train()(x)
    return model.eval()


def group_of(node: Any) -> int:
    return next((item.i for item in node.attribute if item.name == "group"), 1)


def answers(graph: Any, **inputs: np.ndarray) -> list[np.ndarray]:
    """The outputs, by onnxruntime where it is installed, else by onnx's own NumPy code."""
    if not RUNTIME:
        if any(node.op_type == "ConvTranspose" and group_of(node) > 1 for node in graph.graph.node):
            pytest.skip("onnx's own ConvTranspose cuts weights of groups along the wrong axis; onnxruntime has it")
        return list(ReferenceEvaluator(graph).run(None, inputs))
    from onnxruntime import InferenceSession

    return list(InferenceSession(graph.SerializeToString()).run(None, inputs))


def error(layer: Layer, x: np.ndarray, opset: int = 17, fold: bool = True) -> float:
    """The largest difference from ``forward``, as a fraction of the largest value."""
    graph = to_onnx(layer, x.shape[1:], opset=opset, fold=fold)
    wanted, found = layer(x), answers(graph, x=x)[0]
    assert found.shape == wanted.shape
    return float(abs(found - wanted).max() / abs(wanted).max())


def operators(graph: Any) -> list[str]:
    return [node.op_type for node in graph.graph.node]


@pytest.mark.parametrize("case", LAYERS)
def test_every_layer_computes_the_same(case: str) -> None:
    make, shape = LAYERS[case]
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    assert error(worn(make()), 3 * x) <= 1e-5


def test_every_layer_has_a_converter() -> None:
    missing = {
        kind for kind in models.spec.LAYERS.values() if kind.__module__.startswith("gpucnn.")
    } - CONVERTERS.keys()
    assert missing == set()


@pytest.mark.parametrize(
    ("case", "opset"),
    [
        ("GELU", 20),
        ("GELU tanh", 20),
        ("GroupNorm", 13),
        ("Hardswish", 13),
        ("AvgPool2D, ceil mode", 22),
        ("ReLU6", 22),
    ],
)
def test_other_versions_of_the_operators(case: str, opset: int) -> None:
    make, shape = LAYERS[case]
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    assert error(worn(make()), x, opset) <= 1e-5
    assert to_onnx(worn(make()), shape[1:], opset=opset).opset_import[0].version == opset


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_computes_the_same(name: str) -> None:
    shape = (8, 8, 1) if name in ("mnist_cnn", "mlp") else (32, 32, 3) if name in LARGER else (16, 16, 3)
    model = models.build(name, shape, 7, **SMALL.get(name, {}))
    if sum(p.size for p in model.parameters().values()) > MANY:
        pytest.skip(f"more than {MANY:,} parameters")
    x = np.random.default_rng(1).standard_normal((4, *shape), dtype=np.float32)
    settled(worn(model), x)
    assert error(model, x[:2]) <= 1e-5
    assert error(model, x[:2], fold=False) <= 1e-5


def test_batch_norm_disappears_into_the_filters_in_front_of_it() -> None:
    net = layers.Sequential(
        layers.Sequential(layers.Conv2D(2, 4, 3, groups=2, bias=False)),
        layers.Sequential(layers.BatchNormReLU(4), layers.ConvTranspose2D(4, 6, 2, groups=2)),
        (layers.BatchNorm(6), layers.SiLU()),
        layers.Flatten(),
        layers.Linear(294, 5),
        layers.BatchNorm(5),
    )
    net, x = worn(net), np.random.default_rng(1).standard_normal((3, 8, 8, 2), dtype=np.float32)
    assert operators(to_onnx(net, (8, 8, 2), fold=False)).count("BatchNormalization") == 3
    folded = operators(to_onnx(net, (8, 8, 2)))
    assert "BatchNormalization" not in folded
    assert folded.count("Relu") == 1
    assert max(error(net, x), error(net, x, fold=False)) <= 1e-5


def test_an_image_comes_out_of_an_autoencoder() -> None:
    net, x = models.autoencoder((8, 12, 3), width=4), np.random.default_rng(1).random((4, 8, 12, 3), dtype=np.float32)
    settled(worn(net), x)
    graph = to_onnx(net, (8, 12, 3))
    assert [output.name for output in graph.graph.output] == ["y"]
    assert "BatchNormalization" not in operators(graph)
    assert max(error(net, x), error(net, x, fold=False)) <= 1e-5


def test_batch_norm_behind_max_pooling_is_folded_where_its_scales_are_positive() -> None:
    net, x = layers.Sequential(layers.Conv2D(1, 3, 3), layers.MaxPool2D(2), layers.BatchNorm(3)), np.zeros((1, 6, 6, 1))
    norm, rng = worn(net).layers["2"], np.random.default_rng(1)
    for sign, count in ((1, 0), (-1, 1)):
        norm.scale.data[...] = [0.5, 2, sign * 1.5]
        assert operators(to_onnx(net, (6, 6, 1))).count("BatchNormalization") == count
        assert error(net, rng.standard_normal((2, *x.shape[1:]), dtype=np.float32)) <= 1e-5


def test_a_layer_in_two_places_keeps_its_weights_where_it_is_not_folded() -> None:
    shared = layers.Conv2D(2, 2, 3, padding=1)
    net = worn(layers.Sequential(shared, layers.BatchNorm(2), shared))
    assert error(net, np.random.default_rng(1).standard_normal((2, 4, 4, 2), dtype=np.float32)) <= 1e-5


@pytest.mark.parametrize(("pixels", "unit"), [("uint8", 1), ("float32", 50)])
def test_normalisation_is_in_the_graph_and_names_are_in_the_metadata(pixels: str, unit: float) -> None:
    model = worn(models.build("lenet5", (28, 28, 1), 3))
    mean, std = ((0.3,), (0.2,)) if pixels == "uint8" else ((20.0,), (4.0,))
    about = {"mean": mean, "std": std, "pixels": pixels, "classes": ("a", "ä", 'c"'), "name": "lenet5"}
    graph = to_onnx(model, (28, 28, 1), **about)
    images = np.random.default_rng(1).integers(0, 256, (5, 28, 28, 1)).astype(pixels)
    logits, probabilities = ReferenceEvaluator(graph).run(["logits", "probabilities"], {"pixels": images})
    wanted = model(normalise(images, mean, std, model.backend))
    assert abs(logits - wanted).max() <= 1e-5 * abs(wanted).max()
    powers = np.exp(wanted - wanted.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert json.loads(metadata["classes"]) == ["a", "ä", 'c"']
    assert metadata["model"] == "lenet5"
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0]
    assert (batch.dim_param, graph.ir_version, graph.opset_import[0].version) == ("N", 8, 17)


def test_what_cannot_go_out_is_refused_by_name() -> None:
    class Mine(layers.ReLU):
        pass

    refused = partial(pytest.raises, UsageError)
    with refused(match="layer act is a Mine, which has no ONNX form"):
        to_onnx(layers.Sequential(act=Mine()).initialize(0), (4,))
    with refused(match="opset 12: give a number from 13 to 22"):
        to_onnx(layers.ReLU().initialize(0), (4,), opset=12)
    with refused(match="give a number for each channel"):
        to_onnx(layers.ReLU().initialize(0), (4, 4, 3), mean=(0.5,), std=(0.2,))
    with refused(match="LayerNorm, which ONNX has from opset 17 on: give --opset 17"):
        to_onnx(layers.LayerNorm(4).initialize(0), (4,), opset=16)
