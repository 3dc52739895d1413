from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engines import qdq
from engines.equalise import equalise, junctions
from perception.messages import Float32

ROUGH = np.array([100.0, 1.0, 0.1, 1.0], np.float32)


def images(count: int) -> list[dict[str, Float32]]:
    rng = np.random.default_rng(4)
    return [{"images": rng.uniform(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


@pytest.fixture
def model(tmp_path: Path) -> onnx.ModelProto:
    """Convolution, ReLU, two convolutions that read it, and their sum; the first has channels of very unlike ranges."""
    rng = np.random.default_rng(3)

    def tensor(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    first = numpy_helper.to_array(tensor("w0", 4, 3, 3, 3)) * ROUGH[:, None, None, None]
    left, right = (numpy_helper.to_array(tensor(name, 2, 4, 1, 1)) for name in ("w1", "w2"))
    constants = [
        numpy_helper.from_array(first, "w0"),
        tensor("b0", 4),
        numpy_helper.from_array(left / ROUGH[:, None, None], "w1"),
        numpy_helper.from_array(right / ROUGH[:, None, None], "w2"),
    ]
    nodes = [
        helper.make_node("Conv", ["images", "w0", "b0"], ["c0"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="left"),
        helper.make_node("Conv", ["r0", "w2"], ["c2"], name="right"),
        helper.make_node("Add", ["c1", "c2"], ["out"], name="sum"),
    ]
    image = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, [1, 3, 8, 8])
    output = helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 2, 8, 8])
    graph = helper.make_graph(nodes, "rough", [image], [output], constants)
    path = tmp_path / "rough.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return qdq.read(path)


def noise_in_int8(model: onnx.ModelProto) -> float:
    return qdq.compare(model, qdq.quantise(model, qdq.measure_ranges(model, images(8), "minmax"), ()), images(2))


def test_the_float_model_computes_the_same(model: onnx.ModelProto) -> None:
    equal, changed = equalise(model, images(8))
    assert changed == ["r0"]
    assert qdq.compare(model, equal, images(3)) < 1e-10


def test_int8_is_much_closer_where_channels_were_unlike(model: onnx.ModelProto) -> None:
    equal, _ = equalise(model, images(8))
    assert noise_in_int8(equal) < 0.1 * noise_in_int8(model)


@pytest.mark.parametrize("kind", ["Sigmoid", "Softplus"])
def test_only_what_lets_factors_through_is_a_junction(model: onnx.ModelProto, kind: str) -> None:
    assert [junction.maker.name for junction in junctions(model)] == ["first"]
    next(node for node in model.graph.node if node.name == "relu").op_type = kind
    assert junctions(model) == []
    assert equalise(model, images(1))[1] == []


def test_an_activation_that_is_read_otherwise_stays(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("r0", onnx.TensorProto.FLOAT, [1, 4, 8, 8]))
    assert junctions(model) == []


def test_a_convolution_that_is_an_output_itself_stays(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("c0", onnx.TensorProto.FLOAT, [1, 4, 8, 8]))
    equal, changed = equalise(model, images(8))
    assert changed == []
    assert qdq.compare(model, equal, images(2)) == 0


def test_weights_that_two_layers_share_stay(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.name == "right").input[1] = "w1"
    assert junctions(model) == []


def test_a_channel_that_never_speaks_is_left_alone(model: onnx.ModelProto) -> None:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in ("w0", "b0"):
        values = numpy_helper.to_array(weights[name]).copy()
        values[2] = 0
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    equal, _ = equalise(model, images(4))
    assert qdq.compare(model, equal, images(2)) < 1e-10
