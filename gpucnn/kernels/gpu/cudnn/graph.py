"""A convolution as a cuDNN graph: what is asked of cuDNN, and what it answers.

cuDNN's dimensions are always (N,C,H,W), and a filter's (F,C,KH,KW); that memory is channels last is said by the
strides.  Functions take the ``cudnn`` module as an argument, so a double can stand for it.
"""

from typing import Any

from gpucnn.kernels.gpu.cudnn.geometry import DGRAD, FPROP, Geometry
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.types import Shape

NEVER = ("DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "FFT", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13")
"""Numerical notes of engines that are never used: they round inputs or partial sums to half precision, or transform
by matrices that lose digits."""


def channels_last(shape: Shape) -> dict[str, list[int]]:
    """An array (N,H,W,C) in C order, weights (F,KH,KW,C) or a bias (F,), in cuDNN's terms."""
    n, h, w, c = shape if len(shape) == 4 else (1, 1, 1, *shape)
    return {"dim": [n, c, h, w], "stride": [h * w * c, 1, w * c, c]}


def build(cudnn: Any, geometry: Geometry, **target: Any) -> Any:
    """The graph of a convolution, not checked yet.

    Groups are what cuDNN concludes from the channels of image and filter.  The tensors have the numbers 1, 2, ...: the
    op's arrays in the order in which it takes them, then its result.

    Args:
        target: ``handle=`` for the GPU at hand; ``device_property=``, ``sm_version=``, ``sm_count=`` for one that
            is described.
    """
    kind = {"float16": cudnn.data_type.HALF, "float32": cudnn.data_type.FLOAT}[geometry.dtype.name]
    single = cudnn.data_type.FLOAT
    graph = cudnn.pygraph(
        io_data_type=kind, intermediate_data_type=single, compute_data_type=single, name=str(geometry), **target
    )
    shapes = geometry.input_shapes
    tensors = [graph.tensor(name=f"input{uid}", uid=uid, **channels_last(s)) for uid, s in enumerate(shapes, start=1)]
    (top, bottom), (left, right) = geometry.padding
    how = {
        "pre_padding": [top, left],
        "post_padding": [bottom, right],
        "stride": list(geometry.stride),
        "dilation": list(geometry.dilation),
    }
    if geometry.op == FPROP:
        result = graph.conv_fprop(image=tensors[0], weight=tensors[1], **how)
        if geometry.bias:
            result = graph.bias(input=result, bias=tensors[2])
    elif geometry.op == DGRAD:
        result = graph.conv_dgrad(loss=tensors[0], filter=tensors[1], **how)
    else:
        result = graph.conv_wgrad(loss=tensors[0], image=tensors[1], **how)
    layout = channels_last(geometry.output_shape)  # of a gradient cuDNN cannot infer it
    result.set_output(True).set_uid(len(shapes) + 1).set_dim(layout["dim"]).set_stride(layout["stride"])
    return graph


def ask(cudnn: Any, graph: Any, options: Options, dtype: str) -> str:
    """Whether cuDNN can compute this graph within the options: "" if so, else why not.

    The question is put before anything is computed; that its answer "no" comes as an exception is cuDNN's way.
    """
    try:
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        # filters strike out what is listed by now: before ``create_execution_plans`` they would do nothing
        graph.deselect_numeric_notes([getattr(cudnn.numerical_note, note) for note in unwanted(options, dtype)])
        graph.deselect_workspace_greater_than(options.workspace_mib << 20)
        graph.check_support()
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError) as refusal:
        lines = str(refusal).strip().splitlines()
        return lines[0] if lines else type(refusal).__name__
    return ""


def unwanted(options: Options, dtype: str) -> list[str]:
    """The numerical notes of engines that the options rule out."""
    notes = list(NEVER)
    if options.deterministic:
        notes.append("NONDETERMINISTIC")
    if dtype == "float32" and not options.tf32:
        notes.append("TENSOR_CORE")  # tensor cores multiply float32 as TF32
    return notes


def names(graph: Any) -> list[str]:
    """The engines with their settings that the heuristics list, best guess first, those struck out included."""
    return [graph.get_plan_name_at_index(i) for i in range(graph.get_execution_plan_count())]


def buildable(cudnn: Any, graph: Any, index: int) -> bool:
    """Build plan number ``index``, which makes it the one that the graph executes; False where it is struck out.

    (``build_plans`` with the policy ALL would leave the last plan it built as that one, not the best.)
    """
    try:
        graph.build_plan_at_index(index)
    except (cudnn.cudnnGraphNotSupportedError, RuntimeError):
        return False
    return True
