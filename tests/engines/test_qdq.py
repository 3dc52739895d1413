import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engines import qdq
from perception.errors import ModelError
from tests.engines.onnx_models import images, write_residual


@pytest.fixture
def model(tmp_path: Path) -> onnx.ModelProto:
    return qdq.read(write_residual(tmp_path / "m.onnx"))


def _makers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def _quantised(model: onnx.ModelProto, left_out: tuple[str, ...] = ("last",)) -> onnx.ModelProto:
    return qdq.quantise(model, qdq.measure_ranges(model, images(4), "minmax"), left_out)


def test_only_what_feeds_the_outputs_is_an_output_layer(model: onnx.ModelProto) -> None:
    assert qdq.output_layers(model) == ["last"]


def test_inputs_and_weights_of_layers_are_quantised_and_nothing_else(model: onnx.ModelProto) -> None:
    quantised = _quantised(model)
    makers = _makers(quantised)
    kinds = {
        node.name: [makers[name].op_type if name in makers else "as is" for name in node.input]
        for node in quantised.graph.node
        if node.name in ("first", "second", "shortcut", "last")
    }
    assert kinds["first"] == ["DequantizeLinear", "DequantizeLinear", "as is"]
    assert kinds["second"] == ["DequantizeLinear", "DequantizeLinear", "as is"]
    assert kinds["shortcut"] == ["Conv", "DequantizeLinear"]  # so that the addition fuses with the convolution
    assert kinds["last"] == ["Relu", "as is", "as is"]


def test_quantisation_is_symmetric_int8_with_a_scale_per_output_channel(model: onnx.ModelProto) -> None:
    quantised = _quantised(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    pairs = [node for node in quantised.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero_point = constants[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
    weights = [node for node in pairs if node.input[0] in constants]
    assert [constants[node.input[1]].shape for node in weights] == [(8,), (8,)]


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_the_int8_model_says_nearly_the_same(model: onnx.ModelProto, method: qdq.Method) -> None:
    ranges = qdq.measure_ranges(model, images(4), method)
    assert qdq.compare(model, qdq.quantise(model, ranges, ("last",)), images(2)) < 0.01


def test_leaving_everything_out_changes_nothing(model: onnx.ModelProto) -> None:
    assert qdq.compare(model, _quantised(model, ("first", "second", "last")), images(2)) < 1e-10


def test_the_layer_with_the_worst_input_is_the_most_sensitive(tmp_path: Path) -> None:
    model = qdq.read(write_residual(tmp_path / "rough.onnx", rough=100.0))  # one channel dwarfs the others
    ranges = qdq.measure_ranges(model, images(4), "minmax")
    measured = dict(qdq.sensitivity(model, ranges, ("first", "second"), images(2)))
    assert measured["second"] > 3 * measured["first"]


def test_ranges_do_not_depend_on_how_many_inputs_are_held(model: onnx.ModelProto) -> None:
    one_by_one = qdq.measure_ranges(model, iter(images(6)), "minmax")
    every = np.concatenate([one["images"] for one in images(6)])
    low, high = one_by_one["images"].range_value
    assert high == pytest.approx(np.abs(every).max())
    assert low == pytest.approx(-np.abs(every).max())


def test_memory_does_not_grow_with_the_inputs(model: onnx.ModelProto) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            qdq.measure_ranges(model, (images(1)[0] for _ in range(count)), "percentile")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)
    assert peak(40) < 1.5 * peak(4)


@pytest.mark.parametrize("axis", [2, 3])
def test_scores_count_beside_boxes_in_one_output(axis: int) -> None:
    """Without their scores a detector's tables are all noise, however well its boxes are told in pixels."""
    rng = np.random.default_rng(0)
    table = np.concatenate([rng.uniform(0, 640, (2, 1, 500, 4)), rng.beta(0.3, 2, (2, 1, 500, 3))], axis=3)
    blind = table * ([1.0] * 4 + [0.0] * 3)
    table, blind = (np.moveaxis(values, 3, axis) for values in (table, blind))
    assert qdq.noise([table], [blind]) > 0.5
    assert qdq.noise([table], [table]) == 0


def test_a_channel_that_never_speaks_does_not_explode() -> None:
    table = np.zeros((2, 1, 500, 7))
    table[..., :4] = np.random.default_rng(0).uniform(0, 640, (2, 1, 500, 4))
    assert qdq.noise([table], [table + 1e-4]) < 1e-4


def test_maps_are_measured_as_a_whole() -> None:
    maps = np.random.default_rng(0).normal(0, 1, (2, 1, 4, 6, 8)) * ([1.0] * 4 + [0.1] * 4)
    assert qdq.noise([maps], [maps * ([1.0] * 4 + [0.0] * 4)]) < 0.02


def test_a_model_without_layers_is_refused(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "relu", ports[:1], ports[1:])
    path = tmp_path / "relu.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(ModelError, match="nothing to quantise"):
        qdq.read(path)


def test_a_quantised_model_is_not_quantised_again(model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx.save(_quantised(model), tmp_path / "int8.onnx")
    with pytest.raises(ModelError, match="quantised already"):
        qdq.read(tmp_path / "int8.onnx")


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"\xff\xffnot a model")
    with pytest.raises(ModelError, match="no sound ONNX model"):
        qdq.read(tmp_path / "no.onnx")
