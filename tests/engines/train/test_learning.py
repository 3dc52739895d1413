"""The network, its loss and its training, on a world of coloured rectangles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is in the extra `train` only")

from engines.train import dataset  # noqa: E402
from engines.train.config import Phase, TrainConfig  # noqa: E402
from engines.train.dataset import Example  # noqa: E402
from engines.train.export import export  # noqa: E402
from engines.train.loop import train  # noqa: E402
from engines.train.loss import Batch, collate, loss, total  # noqa: E402
from engines.train.model import StockDetector  # noqa: E402
from engines.train.samples import Labels  # noqa: E402
from engines.train.targets import targets  # noqa: E402
from perception.config import DetectorConfig  # noqa: E402
from perception.detect import openvino, recognise  # noqa: E402
from perception.detect.stock import CELLS, REGRESSION, SCORES, output_shapes  # noqa: E402
from perception.errors import ConfigError  # noqa: E402
from tests.engines.train.test_targets import edges_of, make_labels  # noqa: E402

SIZE = (128, 64)
PHASES = (Phase(epochs=1, learning_rate=2e-3), Phase(epochs=2, learning_rate=1e-3, angle=1.5))
CONFIG = TrainConfig(phases=PHASES, input_size=SIZE, batch=4, warm_up_steps=2)


def _examples(count: int) -> list[Example]:
    rng = np.random.default_rng(5)
    examples = []
    for _ in range(count):
        image = np.full((64, 128, 3), 90, np.uint8)
        x, y = rng.integers(10, 80), rng.integers(5, 30)
        cv2.rectangle(image, (int(x), int(y)), (int(x) + 29, int(y) + 19), (30, 30, 220), cv2.FILLED)
        examples.append(Example(dataset.encode(image), make_labels([(float(x), float(y), x + 30.0, y + 20.0)], [0])))
    return examples


def _unmeasured(_: StockDetector) -> Mapping[str, float]:
    return {}


def test_outputs_have_the_shapes_of_the_head() -> None:
    outputs = StockDetector().eval()(torch.zeros(2, 3, SIZE[1], SIZE[0]))
    assert [tuple(output.shape[1:]) for output in outputs] == list(output_shapes(SIZE))


def _batch(labels: Labels) -> Batch:
    return collate([np.zeros((SIZE[1], SIZE[0], 3), np.uint8)], [targets(labels, *SIZE)])


def _by_heart(batch: Batch) -> tuple[Any, Any]:
    """Scores and regression of a network that knows the truth, and says it in every cell of an object."""
    shapes = [(1, len(batch.anchors), channels) for channels in (SCORES, REGRESSION)]
    scores, regression = torch.full(shapes[0], -7.0), torch.zeros(shapes[1])
    for box, label, values in zip(batch.boxes[0], batch.labels[0], batch.values[0], strict=True):
        inside = ((batch.anchors > box[:2]) & (batch.anchors < box[2:])).all(dim=1).nonzero()[:, 0]
        scores[0, inside, label] = 7.0
        regression[0, inside] = values
        for cell in inside:
            regression[0, cell, :4] = torch.from_numpy(edges_of(box.numpy(), batch.anchors[cell].numpy()))
    return scores, regression


def test_the_truth_has_less_loss_than_anything_else() -> None:
    batch = _batch(make_labels([(20, 10, 36, 22), (90, 20, 98, 32)], [0, 5]))
    scores, regression = _by_heart(batch)
    right, wrong = loss(scores, regression, batch), loss(scores * 0.7, regression + 0.3, batch)
    assert right["box"] < 1e-5
    for name in ("scores", "box", "centre", "size", "angle"):
        assert right[name] < wrong[name]


def test_an_honest_spread_is_cheapest() -> None:
    batch = _batch(make_labels([(20, 10, 60, 40)], [0]))
    scores, regression = _by_heart(batch)
    regression[..., 6] += 0.2  # the depth's error
    costs = {}
    for spread in (0.05, 0.2, 0.8):
        regression[..., 7] = float(np.log(spread))
        costs[spread] = float(loss(scores, regression, batch)["depth"])
    assert costs[0.2] == min(costs.values())


def test_what_is_said_where_something_is_ignored_costs_nothing() -> None:
    batch = _batch(make_labels([(20, 10, 60, 40), (90, 20, 110, 40)], [0, 1], ignored=[False, True]))
    scores, regression = _by_heart(batch)
    before = loss(scores, regression, batch)["scores"]
    scores[0, batch.silent[0]] = 7.0
    assert loss(scores, regression, batch)["scores"] == before
    scores[0, -1] = 7.0
    assert loss(scores, regression, batch)["scores"] > before


def test_an_image_without_objects_teaches_silence() -> None:
    batch = _batch(make_labels([], []))
    cells = SIZE[0] // 8 * SIZE[1] // 8 * CELLS
    terms = loss(torch.zeros(1, cells, SCORES), torch.zeros(1, cells, REGRESSION, requires_grad=True), batch)
    assert terms["scores"] == pytest.approx(cells * SCORES * np.log(2), rel=1e-3)
    assert all(term == 0 for name, term in terms.items() if name != "scores")
    total(terms, angle=0.5).backward()


def test_headings_weigh_what_a_phase_says() -> None:
    batch = _batch(make_labels([(20, 10, 60, 40)], [0]))
    scores, regression = _by_heart(batch)
    terms = loss(scores, regression + 0.3, batch)
    assert terms["angle"] > 0
    assert float(total(terms, angle=1.5) - total(terms, angle=0.5)) == pytest.approx(float(terms["angle"]), rel=1e-4)


def test_a_few_steps_lessen_the_loss() -> None:
    torch.manual_seed(0)
    network = StockDetector().train()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    batch = next(iter(dataset.batches(_examples(4), SIZE, 4, seed=0, epoch=0)))
    losses = []
    for _ in range(8):
        scores, regression = network(batch.images.float())
        terms = loss(scores, regression, batch)
        optimiser.zero_grad()
        total(terms, angle=0.5).backward()
        optimiser.step()
        losses.append(total(terms, angle=0.5).item())
    assert losses[-1] < 0.7 * losses[0]


def test_an_interrupted_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    examples = _examples(8)
    whole, _ = train(examples, _unmeasured, CONFIG, tmp_path / "whole.pt", threads=1)

    def interrupt(network: StockDetector) -> Mapping[str, float]:
        measured.append(network)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return {}

    measured: list[StockDetector] = []
    with pytest.raises(KeyboardInterrupt):
        train(examples, interrupt, CONFIG, tmp_path / "parts.pt", threads=1)
    resumed, history = train(examples, _unmeasured, CONFIG, tmp_path / "parts.pt", threads=1)
    assert len(measured) == 2
    assert len(history) == 3
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    examples = _examples(8)
    train(examples, _unmeasured, CONFIG, tmp_path / "c.pt", threads=1)
    shorter = CONFIG.model_copy(update={"phases": PHASES[1:]})
    with pytest.raises(ConfigError, match="another phases"):
        train(examples, _unmeasured, shorter, tmp_path / "c.pt", threads=1)


def test_rare_classes_come_more_often_and_all_images_nearly_as_they_are() -> None:
    examples = _examples(100)
    for number, example in enumerate(examples):
        example.labels.labels[:] = 2 if number == 7 else 0
    order = np.concatenate([dataset._order(examples, np.random.default_rng(epoch)) for epoch in range(10)])
    times = np.bincount(order, minlength=100)
    assert len(order) == 1000
    assert times[7] >= 25
    assert np.delete(times, 7).min() >= 8


def test_examples_are_stored_and_read_back(tmp_path: Path) -> None:
    examples = _examples(3)
    dataset.save(tmp_path / "e.npz", examples)
    for before, after in zip(examples, dataset.load(tmp_path / "e.npz"), strict=True):
        assert before.jpeg == after.jpeg
        np.testing.assert_array_equal(before.labels.boxes, after.labels.boxes)


def test_the_exported_model_says_the_same_and_how_to_use_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = StockDetector().eval()
    path = tmp_path / "stock.onnx"
    export(network, path, SIZE, {"trained_on": "nothing"})
    images = np.random.default_rng(6).integers(0, 256, (2, 3, SIZE[1], SIZE[0])).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for said, meant in zip(session.run(None, {"images": images}), expected, strict=True):
        np.testing.assert_allclose(said, meant.numpy(), atol=1e-4)

    detector = openvino.load(path, threads=1, cameras=1)
    recognised = recognise.recognise(detector.model, DetectorConfig())
    assert recognised.input_spec.channel_order == "bgr"
    assert type(recognised.head).__name__ == "StockHead"
    assert path.stat().st_size < 5_000_000


def test_some_images_are_blank_and_hold_nothing() -> None:
    whole = next(iter(dataset.batches(_examples(40), SIZE, 40, seed=0, epoch=0)))
    some = next(iter(dataset.batches(_examples(40), SIZE, 40, seed=0, epoch=0, blank=0.5)))
    is_blank = [len(boxes) == 0 for boxes in some.boxes]
    assert 8 <= sum(is_blank) <= 32
    for i, blank in enumerate(is_blank):
        if blank:
            assert some.images[i].float().std() < 8
        else:
            assert torch.equal(some.images[i], whole.images[i])


def test_batch_statistics_are_of_whole_images_in_the_end(tmp_path: Path) -> None:
    examples = _examples(8)
    network, _ = train(examples, _unmeasured, CONFIG, tmp_path / "c.pt", threads=1)
    normalise = network.stem[0][1]
    assert normalise.num_batches_tracked == len(examples) // CONFIG.batch
    images = np.concatenate(list(dataset.whole_images(examples, SIZE, CONFIG.batch, seed=0, count=8)))
    assert images.shape == (8, SIZE[1], SIZE[0], 3)
    with torch.no_grad():
        seen = network.stem[0][0](torch.from_numpy(images).permute(0, 3, 1, 2).float() - 128)
    assert torch.allclose(normalise.running_mean, seen.mean(dim=(0, 2, 3)), rtol=0.05, atol=0.5)
