import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from mcap.reader import make_reader

from engines.world import World, drive, surround_rig
from engines.world.__main__ import EXIT_REFUSED, main
from perception.ingest.open_drive import open_drive
from perception.messages import CLASSES, Image

SAMPLE = Path(__file__).parents[3] / "drives" / "city.mcap"
SAMPLE_SEED, SAMPLE_QUALITY = 9, 40
LARGEST = 15_000_000


def make(path: Path) -> Path:
    drive.record(World(9, "city", surround_rig(160, 96)), path, 0.3, oversample=1)
    return path


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("drive") / "short.mcap")


def messages(path: Path, topic: str) -> list[tuple[int, bytes]]:
    with path.open("rb") as file:
        return [(m.log_time, m.data) for _, _, m in make_reader(file).iter_messages(topics=[topic])]


def picture(data: bytes) -> Image:
    """The image in a CompressedImage."""
    packed = np.frombuffer(CompressedImage.FromString(data).data, np.uint8)
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def test_the_same_seed_gives_the_same_bytes(short: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again.mcap").read_bytes() == short.read_bytes()


def test_tags_and_the_scenario_are_in_it(short: Path) -> None:
    tags = [json.loads(data) for _, data in messages(short, "/tags")]
    assert tags == [{"light": "day", "weather": "clear", "scene": "street"}] * 3
    with short.open("rb") as file:
        (record,) = list(make_reader(file).iter_metadata())
    assert record.name == "scenario"
    assert record.metadata == {"name": "city", "seed": "9", "light": "day", "weather": "clear", "scenes": "street"}


def test_every_image_has_its_truth(short: Path) -> None:
    for name in surround_rig():
        images, truths = messages(short, f"/{name}/image_rect_compressed"), messages(short, f"/{name}/annotations")
        assert [stamp for stamp, _ in images] == [stamp for stamp, _ in truths]
        for (_, image), (_, truth) in zip(images, truths, strict=True):
            assert picture(image).shape == (96, 160, 3)
            for outline in ImageAnnotations.FromString(truth).points:
                facts = {pair.key: pair.value for pair in outline.metadata}
                assert facts["category"] in CLASSES
                assert 0 <= float(facts["visibility"]) <= 1
                assert 0 <= float(facts["truncation"]) <= 1
                assert len(facts["visible_box"].split()) == 4
                assert facts["id"].isdigit()


def test_the_pipeline_reads_it(short: Path) -> None:
    opened = open_drive(short)
    rig = surround_rig(160, 96)
    assert set(opened.rig) == set(rig)
    for name, camera in opened.rig.items():
        np.testing.assert_allclose(camera.intrinsics, rig[name].intrinsics)
        np.testing.assert_allclose(camera.base_from_camera.rotation, rig[name].base_from_camera.rotation, atol=1e-9)
    packets = list(opened.packets())
    assert len(packets) == 18
    assert all(packet.map_from_base is not None for packet in packets)
    assert any(packet.point_cloud is not None for packet in packets)
    truths = list(opened.truth())
    assert len(truths) == 3
    world = World(9, "city", surround_rig(160, 96))
    world.step(truths[0].stamp_ns / 1e9 - drive.START_NS / 1e9)
    meant = world.truth()
    assert truths[0].ids == meant.ids
    np.testing.assert_allclose(truths[0].positions, meant.positions, atol=2e-3)
    np.testing.assert_allclose(np.cos(truths[0].yaws - meant.yaws), 1.0, atol=1e-4)
    assert opened.faults() == []


def test_cameras_fire_within_five_milliseconds(short: Path) -> None:
    stamps = [[stamp for stamp, _ in messages(short, f"/{name}/image_rect_compressed")] for name in surround_rig()]
    for tick in zip(*stamps, strict=True):
        assert 0 < max(tick) - min(tick) <= 5_000_000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--out is missing"),
        (["--out", "a.bag"], "a drive is an .mcap file"),
        (["--out", "a.mcap", "--seconds", "0"], "--seconds 0: expected more than 0"),
        (["--out", "a.mcap", "--seconds", "nan"], "--seconds nan"),
        (["--out", "a.mcap", "--seed", "-1"], "--seed -1"),
        (["--out", "a.mcap", "--jpeg-quality", "101"], "--jpeg-quality 101"),
        (["--out", "a.mcap", "--scenario", "snow"], "scenario 'snow' does not exist; there are: day"),
        (["--out", "there.mcap"], "exists; --force replaces it"),
        (["--out", "file/a.mcap", "--seconds", "0.1"], "cannot be written"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.mcap").write_bytes(b"a drive")
    Path("file").write_bytes(b"not a folder")
    assert main(arguments) == EXIT_REFUSED
    told = capsys.readouterr().err
    assert complaint in told
    assert told.rstrip("\n").splitlines()[-1].startswith("error: ")
    assert "Traceback" not in told
    assert Path("there.mcap").read_bytes() == b"a drive"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "there.mcap"]


def test_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for name in ("day", "low_sun", "dusk", "night", "tunnel", "rain", "fog", "city"):
        assert f"\n{name} " in f"\n{listed}"


def test_the_sample_drive_is_what_its_command_makes(tmp_path: Path) -> None:
    """Its first tick, made again: the same truth, and the same pictures but for the last bits of another processor."""
    again = tmp_path / "again.mcap"
    drive.record(World(SAMPLE_SEED, "city"), again, 0.1, quality=SAMPLE_QUALITY)
    for topic in ("/tags", "/pose", "/markers/annotations", "/CAM_FRONT/camera_info"):
        assert messages(again, topic)[0] == messages(SAMPLE, topic)[0]
    for name in surround_rig():
        topic = f"/{name}/image_rect_compressed"
        (stamp, new), (meant, old) = messages(again, topic)[0], messages(SAMPLE, topic)[0]
        assert stamp == meant
        assert np.abs(picture(new).astype(int) - picture(old)).mean() < 1.0


def test_the_sample_drive_is_small_and_has_what_it_promises() -> None:
    assert SAMPLE.stat().st_size <= LARGEST
    with SAMPLE.open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    topics = {channel.topic: summary.statistics.channel_message_counts[i] for i, channel in summary.channels.items()}
    for name, camera in surround_rig().items():
        assert topics[f"/{name}/image_rect_compressed"] == topics[f"/{name}/annotations"] == 150
        assert (camera.width, camera.height) == (640, 384)
    assert topics["/LIDAR_TOP"] == topics["/pose"] == topics["/markers/annotations"] == topics["/tags"] == 150
    scenes = [json.loads(data)["scene"] for _, data in messages(SAMPLE, "/tags")]
    assert set(scenes) == {"street", "tunnel"}
