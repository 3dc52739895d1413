from __future__ import annotations

import contextlib
import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from perception.config import HealthConfig
from perception.output import endpoints
from perception.output.endpoints import Endpoints, routes
from perception.output.health import Health
from perception.output.metrics import Metrics
from tests.output.samples import BUDGET, make_rig


class Served:
    """Endpoints on a free port, and what they are about."""

    def __init__(self) -> None:
        self.health = Health(2.0)
        self.metrics = Metrics()
        self.metrics.begin(BUDGET, make_rig())
        self.reasons: list[str] = []
        self.has_recorder = True
        self.told: list[str] = []
        answers = routes(self.health, self.metrics, self._record)
        self.endpoints = Endpoints(HealthConfig(port=0), answers, lambda _, text: self.told.append(text))
        self.port = int(re.findall(r":(\d+)", until_told(self.told, 1))[-1])

    def _record(self, reason: str) -> bool:
        self.reasons.append(reason)
        return self.has_recorder

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


def until_told(told: list[str], lines: int) -> str:
    deadline = time.monotonic() + 10
    while len(told) < lines:
        assert time.monotonic() < deadline, told
        time.sleep(0.01)
    return told[-1]


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.endpoints.close()


def test_readiness_and_health_have_their_status_and_say_why(served: Served) -> None:
    assert served.ask("GET", "/readyz")[0] == HTTPStatus.SERVICE_UNAVAILABLE
    assert served.ask("GET", "/healthz")[0] == HTTPStatus.OK
    served.health.state, served.health.on_time_ns = "running", time.monotonic_ns()
    assert served.ask("GET", "/readyz?verbose")[0] == HTTPStatus.OK
    served.health.on_time_ns = 1
    status, body = served.ask("GET", "/healthz")
    assert status == HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(body)["since_on_time_s"] > 2


def test_metrics_are_scraped(served: Served) -> None:
    status, body = served.ask("GET", "/metrics")
    assert status == HTTPStatus.OK
    assert "perception_ticks_total 0.0" in body


def test_a_post_asks_the_flight_recorder_body_or_not(served: Served) -> None:
    assert served.ask("POST", "/flight")[0] == HTTPStatus.ACCEPTED
    assert served.ask("POST", "/flight", b"x" * 100_000)[0] == HTTPStatus.ACCEPTED
    assert len(served.reasons) == 2
    served.has_recorder = False
    status, body = served.ask("POST", "/flight")
    assert status == HTTPStatus.CONFLICT
    assert "flight.enabled" in body


def test_what_is_not_there_is_refused(served: Served) -> None:
    assert served.ask("GET", "/flight")[0] == HTTPStatus.METHOD_NOT_ALLOWED
    assert not served.reasons
    status, body = served.ask("GET", "/etc/passwd")
    assert status == HTTPStatus.NOT_FOUND
    assert "/metrics" in body


@pytest.mark.parametrize("request_", [b"\r\n\r\n", b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"GET /metrics\r\n:\r\n\r\n"])
def test_nonsense_gets_an_answer(served: Served, request_: bytes) -> None:
    with served.connect() as client:
        client.sendall(request_)
        assert client.recv(100).startswith(b"HTTP/1.1 404")


def test_a_request_without_end_is_hung_up_on(served: Served) -> None:
    with served.connect() as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n" + b"X: " + b"x" * 50_000)
        with contextlib.suppress(ConnectionError):  # it hung up on what it had not read
            assert client.recv(100) == b""
    assert served.ask("GET", "/healthz")[0] == HTTPStatus.OK


def test_those_who_dawdle_take_nothing_from_others(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    dawdlers = [served.connect() for _ in range(20)]
    assert served.ask("GET", "/healthz")[0] == HTTPStatus.OK
    more = [served.connect() for _ in range(30)]
    assert more[-1].recv(1) == b""  # there are enough
    for client in (*dawdlers, *more):
        client.close()
    monkeypatch.setattr(endpoints, "_PATIENCE_S", 0.1)
    with served.connect() as client:
        client.sendall(b"GET")
        assert client.recv(1) == b""


def test_a_route_that_raises_is_answered_and_told_once(served: Served) -> None:
    for value in ("1.0.x", "1.0.y"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{served.port}/metrics", headers={"Accept": f"text/plain; version={value}"}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)  # noqa: S310
        with refused.value as answer:
            assert answer.code == HTTPStatus.INTERNAL_SERVER_ERROR
            assert b"GET /metrics cannot be answered: " in (body := answer.read())
            assert body.count(b"\n") == 1
    assert len(served.told) == 2  # where it is, and that
    assert "cannot be answered" in served.told[1]
    assert "\n" not in served.told[1]
    assert served.ask("GET", "/metrics")[0] == HTTPStatus.OK


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("a..b", "no host can have such a name"),
        ("x" * 64, "no host can have such a name"),
        ("::1%nowhere", "not known"),
    ],
)
def test_an_address_that_cannot_be_had_is_told_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    monkeypatch.setattr(endpoints, "_RETRY_S", 0.05)
    told: list[str] = []
    endless = Endpoints(HealthConfig(address=address), {}, lambda _, text: told.append(text))
    assert reason in until_told(told, 1)
    time.sleep(0.2)
    assert len(told) == 1
    endless.close()


def test_a_port_that_is_taken_is_told_once_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_RETRY_S", 0.05)
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        late = Endpoints(HealthConfig(port=port), {}, lambda _, text: told.append(text))
        assert str(port) in until_told(told, 1)
        time.sleep(0.2)
        assert len(told) == 1
    assert until_told(told, 2).startswith("health and metrics")
    socket.create_connection(("127.0.0.1", port), timeout=10).close()
    late.close()
