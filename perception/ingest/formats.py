"""What a file is, by its first bytes: names lie, contents do not."""

from __future__ import annotations

from typing import Final

HEAD_BYTES: Final = 64
"""How much of a file the functions here want to see."""

_MCAP: Final = b"\x89MCAP0\r\n"
_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"

_OTHERS: Final = {
    b"version https://git-lfs": "a Git LFS pointer, not the data itself (run `git lfs pull`)",
    b"#ROSBAG V2.0": "a ROS 1 bag (convert it with `mcap convert`)",
    b"SQLite format 3\x00": "an SQLite database, perhaps a rosbag2 .db3 (convert it with `mcap convert`)",
    b"\x89MCAP": "an MCAP file of a version other than 0",
    b"PK\x03\x04": "a ZIP archive (unpack it)",
    b"\x1f\x8b": "a gzip file (unpack it)",
    b"\x28\xb5\x2f\xfd": "a Zstandard file (unpack it)",
    b"<!DOCTYPE": "an HTML page, perhaps a download that failed",
    b"<html": "an HTML page, perhaps a download that failed",
    _MCAP: "an MCAP recording",
    _JPEG: "a JPEG image",
    _PNG: "a PNG image",
}


def is_mcap(head: bytes) -> bool:
    """Whether a file that begins so is an MCAP recording."""
    return head.startswith(_MCAP)


def image_format(data: bytes) -> str | None:
    """``jpeg``, ``png`` or None."""
    if data.startswith(_JPEG):
        return "jpeg"
    return "png" if data.startswith(_PNG) else None


def known_as(head: bytes) -> str | None:
    """A phrase for an error message: what a file or an image that begins so is, None where nothing is known of it."""
    if not head:
        return "empty"
    # longest first, as one may begin with another
    names = (_OTHERS[magic] for magic in sorted(_OTHERS, key=len, reverse=True) if head.startswith(magic))
    return next(names, None)


def looks_like(head: bytes) -> str:
    """As `known_as`, with its first bytes where nothing is known of it."""
    return known_as(head) or f"unknown: it begins with {head[:8]!r}"
