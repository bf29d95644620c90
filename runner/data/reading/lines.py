"""Bytes of a text file -> lines in UTF-8, each of bounded length, whatever packs, encodes and ends them."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from runner.data.reading.records import EXCERPT, LIMIT

CHUNK = 1 << 20
KEPT = 4 * EXCERPT  # bytes of a line that is too long, enough for its excerpt
SWELLS = 200  # times its size; gzip can reach about 1,000, with one byte again and again
SWELLS_FROM = 32 << 20  # bytes that may be unpacked in any case
BROKEN = (EOFError, zlib.error, gzip.BadGzipFile)  # what reading a damaged gzip file raises
BOM_REMOVED = "a byte-order mark was removed"
BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def suffix(path: Path) -> str:
    """The last suffix that is not .gz, in lower case: `.jsonl`."""
    return next((kind for kind in map(str.lower, reversed(path.suffixes)) if kind != ".gz"), "")


def is_gzipped(path: Path) -> bool:
    """Whether the file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def is_gzip_bomb(path: Path) -> bool:
    """Whether a gzip file unpacks to more than SWELLS times its size, found without keeping any of it; what it says of
    that itself may be a lie, or cut off."""
    num_bytes, most = 0, max(SWELLS_FROM, SWELLS * path.stat().st_size)
    with contextlib.suppress(*BROKEN), gzip.open(path) as stream:
        while num_bytes <= most and (piece := stream.read(CHUNK)):
            num_bytes += len(piece)
    return num_bytes > most


def open_unpacked(path: Path) -> io.BufferedIOBase:
    """The file's bytes, unpacked when it is gzipped."""
    return gzip.open(path) if is_gzipped(path) else path.open("rb")


def chunks(path: Path) -> Iterator[bytes]:
    """The file unpacked and in UTF-8, in pieces, without its byte-order mark; what is not text stays not UTF-8.

    Raises one of BROKEN where the packing is damaged, after the pieces before that.
    """
    with open_unpacked(path) as stream:
        rest = _pieces(stream)
        head = next(rest, b"")
        bom, encoding = _encoding(head)
        if encoding == "utf-8":
            yield head.removeprefix(bom)
            yield from rest
        else:
            yield from _transcoded(chain([head], rest), encoding)


def _pieces(stream: io.BufferedIOBase) -> Iterator[bytes]:
    """CHUNK bytes at a time, fewer before the end or the damage."""
    more = b"-"
    while more:
        piece = bytearray()
        try:
            while len(piece) < CHUNK and (more := stream.read1(CHUNK - len(piece))):
                piece += more
        except BROKEN:
            if piece:
                yield bytes(piece)
            raise
        if piece:
            yield bytes(piece)


def file_repairs(path: Path) -> tuple[str, ...]:
    """What is done to the file as a whole when it is read."""
    with open_unpacked(path) as stream:
        bom, encoding = _encoding(stream.read(4))
    if not bom:
        return ()
    return (BOM_REMOVED,) if encoding == "utf-8" else (f"{encoding.upper()} was made UTF-8",)


def lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes and wholeness of each line, ended by LF, CRLF or CR; of one over the limit only the beginning."""
    number, rest, whole, after_cr = 0, b"", True, False
    for chunk in filter(None, chunks(path)):
        piece = chunk.removeprefix(b"\n") if after_cr else chunk
        after_cr = chunk.endswith(b"\r")
        if b"\r" in piece:
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, last = piece.split(b"\n")
        if ended:
            ended[0] = rest + ended[0]
            for line in ended:
                number += 1
                fits = whole and len(line) <= LIMIT
                yield number, line if fits else line[:KEPT], fits
                whole = True
            rest = last
        else:
            rest += last
        if len(rest) > LIMIT:
            rest, whole = rest[:KEPT], False
    if rest:
        yield number + 1, rest, whole


def _encoding(head: bytes) -> tuple[bytes, str]:
    return next(((bom, encoding) for bom, encoding in BOMS if head.startswith(bom)), (b"", "utf-8"))


def _transcoded(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    codecs.register_error("runner-not-text", lambda error: ("\udcff", getattr(error, "end", 0)))
    decoder = codecs.getincrementaldecoder(encoding)("runner-not-text")
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
