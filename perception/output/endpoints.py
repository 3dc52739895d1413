"""HTTP for those who operate the vehicle: ``/healthz``, ``/readyz``, ``/metrics``, ``POST /flight``.

One thread answers all. A client has five seconds and a few kilobytes, and one that floods costs no more than a fixed
number of connections.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from perception.config import HealthConfig
from perception.output.health import Health
from perception.output.metrics import Metrics
from perception.systemd import Tell

_RETRY_S: Final = 5.0
_PATIENCE_S: Final = 5.0
_MAX_REQUEST: Final = 8192
_MAX_CONNECTIONS: Final = 32
_END: Final = b"\r\n\r\n"


class Answer(NamedTuple):
    """What is sent back."""

    status: HTTPStatus
    content_type: str
    body: bytes


Headers = Mapping[str, str]
Route = Callable[[Headers], Answer]


def routes(health: Health, metrics: Metrics, record_flight: Callable[[str], bool]) -> dict[tuple[str, str], Route]:
    """What is answered, by method and path; `record_flight` is given a reason, and says whether there is a recorder."""

    def judged(good: Callable[[], bool]) -> Route:
        def answer(_: Headers) -> Answer:
            status = HTTPStatus.OK if good() else HTTPStatus.SERVICE_UNAVAILABLE
            return Answer(status, "application/json", health.report())

        return answer

    def scrape(headers: Headers) -> Answer:
        return Answer(HTTPStatus.OK, *metrics.exposition(headers.get("accept", "")))

    def flight(_: Headers) -> Answer:
        if record_flight("asked for over HTTP"):
            return _said(HTTPStatus.ACCEPTED, "the flight recorder keeps the last seconds")
        return _said(HTTPStatus.CONFLICT, "there is no flight recorder running: set flight.enabled")

    return {
        ("GET", "/healthz"): judged(lambda: health.healthy),
        ("GET", "/readyz"): judged(lambda: health.ready),
        ("GET", "/metrics"): scrape,
        ("POST", "/flight"): flight,
    }


class Endpoints:
    """Serves `routes` on a thread of its own.

    It says where, once; or that the port is taken, once, and tries again every few seconds. A route that raises is told
    once, and answered with 500. `tell` is given such lines.
    """

    def __init__(self, config: HealthConfig, routes: Mapping[tuple[str, str], Route], tell: Tell) -> None:
        self._config = config
        self._routes = routes
        self._tell = tell
        self._open = 0
        self._broken: set[tuple[str, str]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)

    def _run(self) -> None:
        serving = self._loop.create_task(self._serve())
        self._loop.run_forever()
        tasks = {serving, *asyncio.all_tasks(self._loop)}
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self) -> None:
        address, port, told = self._config.address, self._config.port, False
        while True:
            try:
                server = await asyncio.start_server(self._converse, address, port, limit=_MAX_REQUEST)
            except (OSError, UnicodeError) as error:
                if not told:
                    self._tell(
                        "warning",
                        f"no health and metrics: {address}:{port}: {_reason(error)}; tried again every {_RETRY_S:g} s",
                    )
                told = True
                await asyncio.sleep(_RETRY_S)
                continue
            bound = server.sockets[0].getsockname()
            self._tell("info", f"health and metrics: http://{address}:{bound[1]}/metrics")
            async with server:
                await server.serve_forever()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MAX_CONNECTIONS:
                await asyncio.wait_for(self._answer(reader, writer), _PATIENCE_S)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it hung up, dawdled, or said too much
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self._answer_to((await reader.readuntil(_END)).decode("latin-1"))
        head = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
        )
        writer.write("\r\n".join(head).encode() + _END + answer.body)
        writer.write_eof()
        while await reader.read(_MAX_REQUEST):  # a body nobody asked for: closing over it would reset the connection
            pass

    def _answer_to(self, request: str) -> Answer:
        first, *rest = request.removesuffix(_END.decode()).split("\r\n")
        method, _, target = first.rpartition(" ")[0].partition(" ")
        path = target.partition("?")[0]
        if (method, path) in self._routes:
            headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            return self._ask((method, path), headers)
        allowed = [known for known, of_path in self._routes if of_path == path]
        if allowed:
            return _said(HTTPStatus.METHOD_NOT_ALLOWED, f"{path}: {' or '.join(allowed)} only")
        return _said(HTTPStatus.NOT_FOUND, "known here: " + ", ".join(" ".join(key) for key in self._routes))

    def _ask(self, key: tuple[str, str], headers: Headers) -> Answer:
        """What a route answers, or that it cannot."""
        try:
            return self._routes[key](headers)
        except Exception as error:  # noqa: BLE001 (nothing that is asked may end the connection without an answer)
            problem = f"{' '.join(key)} cannot be answered: {error!r}"
            if key not in self._broken:
                self._broken.add(key)
                self._tell("warning", problem)
            return _said(HTTPStatus.INTERNAL_SERVER_ERROR, problem)


def _reason(error: OSError | UnicodeError) -> str:
    """Why an address cannot be had, without the address: asyncio's errors say it all again."""
    if isinstance(error, UnicodeError):
        return "no host can have such a name"
    if isinstance(error, socket.gaierror):  # its numbers are not errno's
        return error.strerror or str(error)
    return os.strerror(error.errno) if error.errno else str(error)


def _said(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())
