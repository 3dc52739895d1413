"""Reads an MCAP file as a stream of messages, however large or damaged it is.

Format: mcap.dev/spec. Checksums of chunks and of the data section are checked. Sizes that the file claims are bounded
before anything is allocated for them.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO, Final, NamedTuple

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, DataEnd, Footer, McapRecord, Message, Schema, Statistics
from mcap.stream_reader import StreamReader, breakup_chunk

_MAGIC: Final = b"\x89MCAP0\r\n"
_HEAD: Final = struct.Struct("<BQ")
_FOOTER_SIZE: Final = _HEAD.size + 20
_MAX_RECORD: Final = 256 * 2**20
_MAX_SUMMARY: Final = 64 * 2**20
_NONSENSE: Final = (
    McapError, ValueError, struct.error, OverflowError, MemoryError, RuntimeError, zstandard.ZstdError,
)  # fmt: skip
"""What the parsers of records and of compressed chunks raise for bytes that make no sense."""


class DamageError(Exception):
    """The file makes no sense past `offset`, for the reason in the message."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(reason)
        self.offset = offset


class RawMessage(NamedTuple):
    """A message as it lies in the file."""

    topic: str
    schema: str
    log_ns: int
    data: bytes


class Summary(NamedTuple):
    """What the file's index tells: the schema of each topic that has messages, and the range of `log_ns`."""

    schemas: dict[str, str]
    time_range_ns: tuple[int, int] | None


def read_messages(file: BinaryIO, schemas: Collection[str]) -> Iterator[RawMessage]:
    """Yield the protobuf messages of these schemas in file order, with one chunk in memory at a time.

    Raises `DamageError` at the place up to which the file could be read.
    """
    names: dict[int, str] = {}
    channels: dict[int, tuple[str, str] | None] = {}
    for offset, record in read_records(file):
        if isinstance(record, Schema):
            names[record.id] = record.name if record.encoding == "protobuf" else ""
        elif isinstance(record, Channel):
            schema = names.get(record.schema_id, "")
            wanted = schema in schemas and record.message_encoding == "protobuf"
            channels[record.id] = (record.topic, schema) if wanted else None
        elif isinstance(record, Message):
            if record.channel_id not in channels:
                raise DamageError(offset, f"a message of channel {record.channel_id}, which was never declared")
            channel = channels[record.channel_id]
            if channel is not None:
                yield RawMessage(*channel, record.log_time, record.data)


def read_summary(file: BinaryIO) -> Summary | None:
    """Read the index at the file's end; None where there is none or it is damaged."""
    try:
        return _summary(file)
    except (*_NONSENSE, OSError):
        return None


def read_records(file: BinaryIO) -> Iterator[tuple[int, McapRecord]]:
    """Schemas, channels and messages of any encoding, each with the offset of the top-level record that it came in.

    Raises `DamageError` as `read_messages` does.
    """
    size = os.fstat(file.fileno()).st_size
    crc = zlib.crc32(file.read(len(_MAGIC)))
    offset = len(_MAGIC)
    while True:
        opcode, body = _record(file, offset, size)
        try:
            contents = _contents(opcode, body, crc)
        except _NONSENSE as error:
            raise DamageError(offset, str(error).partition("\n")[0] or "a record that makes no sense") from None
        for content in contents:
            yield offset, content
        if opcode == Opcode.DATA_END:
            break
        crc = zlib.crc32(body, zlib.crc32(_HEAD.pack(opcode, len(body)), crc))
        offset += _HEAD.size + len(body)
    file.seek(size - len(_MAGIC))
    if file.read() != _MAGIC:
        raise DamageError(size, "the file ends inside its index; the messages are complete")


def _record(file: BinaryIO, offset: int, size: int) -> tuple[int, bytes]:
    left = size - offset - _HEAD.size
    if left < 0:
        raise DamageError(offset, f"the file ends there ({size} bytes), before its data is complete")
    try:
        opcode, length = _HEAD.unpack(file.read(_HEAD.size))
        if length > left:
            raise DamageError(offset, f"a record of {length} bytes, where {left} are left in the file")
        if length > _MAX_RECORD:
            raise DamageError(offset, f"a record of {length} bytes; at most {_MAX_RECORD} are read")
        return opcode, file.read(length)
    except (OSError, struct.error) as error:
        raise DamageError(offset, f"the file cannot be read there: {error}") from None


def _contents(opcode: int, body: bytes, crc: int) -> list[McapRecord]:
    stream = ReadDataStream(BytesIO(body))
    if opcode == Opcode.CHUNK:
        return _unpack(Chunk.read(stream))
    if opcode == Opcode.MESSAGE:
        return [Message.read(stream, len(body))]
    if opcode == Opcode.SCHEMA:
        return [Schema.read(stream)]
    if opcode == Opcode.CHANNEL:
        return [Channel.read(stream)]
    if opcode == Opcode.DATA_END:
        announced = DataEnd.read(stream).data_section_crc
        if announced not in (0, crc):
            raise ValueError(f"the checksum of all the data before it is {crc:08x}, {announced:08x} was announced")
    return []


def _unpack(chunk: Chunk) -> list[McapRecord]:
    size = chunk.uncompressed_size
    if size > _MAX_RECORD:
        raise ValueError(f"a chunk of {size} bytes; at most {_MAX_RECORD} are read")
    if chunk.compression == "zstd":
        data = zstandard.ZstdDecompressor().stream_reader(chunk.data).read(size)
    elif chunk.compression == "lz4":
        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size)
    elif chunk.compression == "":
        data = chunk.data
    else:
        raise ValueError(f"a chunk compressed with {chunk.compression!r}, expected zstd, lz4 or nothing")
    if len(data) != size:
        raise ValueError(f"a chunk of {len(data)} bytes, {size} were announced")
    return breakup_chunk(replace(chunk, compression="", data=data), validate_crc=True)


def _index_records(section: bytes) -> Iterator[McapRecord]:
    """The records of an index; a chunk has no place in it, and is not unpacked."""
    return StreamReader(BytesIO(section), skip_magic=True, emit_chunks=True).records


def _summary(file: BinaryIO) -> Summary | None:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - _FOOTER_SIZE - len(_MAGIC)))
    footer = next(_index_records(file.read()))
    if not isinstance(footer, Footer) or not 0 < footer.summary_start < size <= footer.summary_start + _MAX_SUMMARY:
        return None
    file.seek(footer.summary_start)
    section = file.read()
    if footer.summary_crc and zlib.crc32(section[: -len(_MAGIC) - 4]) != footer.summary_crc:
        return None
    records = list(_index_records(section))
    names = {record.id: record.name for record in records if isinstance(record, Schema)}
    statistics = next((record for record in records if isinstance(record, Statistics)), None)
    schemas = {
        record.topic: names.get(record.schema_id, "no schema")
        + ("" if record.message_encoding == "protobuf" else f" as {record.message_encoding}")
        for record in records
        if isinstance(record, Channel) and (statistics is None or statistics.channel_message_counts.get(record.id))
    }
    times = (statistics.message_start_time, statistics.message_end_time) if statistics else (1, 0)
    return Summary(schemas, times if times[0] <= times[1] < 2**63 else None)
