"""The builder's table, in the words of TensorRT 10; those of TensorRT for RTX are read in test_build.py."""

from __future__ import annotations

from engines.layers import read_table

TENSORRT = """Layers:
Name: q_input, LayerType: Reformat, Inputs: [ { Name: images, Location: Device, Dimensions: [1,3,64,96], \
Format/Datatype: Row major linear FP32 }], Outputs: [ { Name: q_out, Location: Device, Dimensions: [1,3,64,96], \
Format/Datatype: Row major Int8 format }], ParameterType: Reformat, Origin: QDQ, TacticValue: 0x00000000000003ea, \
StreamId: 0, Metadata: [ONNX Layer: q_input]
Name: w + q_w + /a/Conv + PWN(/a/act, 1), LayerType: CaskConvolution, Inputs: [ { Name: q_out, Location: Device, \
Dimensions: [1,3,64,96], Format/Datatype: Row major Int8 format }], Outputs: [ { Name: b, Location: Device, \
Dimensions: [1,32,32,48], Format/Datatype: Thirty-two wide channel vectorized row major Int8 format }], \
ParameterType: Convolution, Kernel: [3,3], PrePadding: [1,1], OutMaps: 32, Groups: 1, Weights: {"Type": "Int8", \
"Count": 864}, Bias: {"Type": "Float", "Count": 32}, HasBias: 1, HasReLU: 1, TacticName: sm80_xmma_fprop, \
TacticValue: 0x9a, StreamId: 0, Metadata: [ONNX Layer: /a/Conv]\x1e[ONNX Layer: dq_w]\x1e[ONNX Layer: /a/act[0]]
Name: order, LayerType: signal, Inputs: [], Outputs: [], TacticName: , StreamId: 0, Metadata:\x20
Name: {ForeignNode[/b...c]}, LayerType: kgen, Inputs: [ { Name: b, Dimensions: [1,32,32,48], Format/Datatype: Int8 }, \
{ Name: e, Dimensions: [], Format/Datatype: Half }], Outputs: [ { Name: scores, Dimensions: [1,10], \
Format/Datatype: Mystery }], TacticName: __myl, StreamId: 0, Metadata:\x20

Bindings:
images
scores
"""


def test_layers_in_the_words_of_tensorrt() -> None:
    quantise, convolution, rest = read_table(TENSORRT)

    assert (quantise.name, quantise.kind, quantise.nodes) == ("q_input", "Reformat", ("q_input",))
    assert [(each.name, each.type, each.shape) for each in quantise.inputs] == [("images", "float32", (1, 3, 64, 96))]
    assert [each.type for each in quantise.outputs] == ["int8"]
    assert not quantise.in_int8

    assert convolution.name == "w + q_w + /a/Conv + PWN(/a/act, 1)"
    assert convolution.nodes == ("/a/Conv", "dq_w", "/a/act[0]")
    assert convolution.weights == "int8"
    assert convolution.tactic == "sm80_xmma_fprop"
    assert convolution.in_int8

    assert rest.name == "{ForeignNode[/b...c]}"
    assert [each.type for each in rest.inputs] == ["int8", "float16"]
    assert [each.shape for each in rest.inputs] == [(1, 32, 32, 48), ()]
    assert [each.type for each in rest.outputs] == ["Mystery"]
    assert (rest.nodes, rest.weights) == ((), None)


def test_a_builder_that_printed_no_table() -> None:
    assert read_table("") == ()
