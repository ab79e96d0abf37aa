"""How a file of sound is opened, and whether it holds what it promises.

libsndfile takes the samples that are there, and says nothing of those that are
not. Most containers say how many there should be.
"""

import os
import re
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import soundfile

# Programs that write to a pipe do not know the size and fill in the largest
# number that fits (SoX: a little less than 2^31; in AIFF, than 0x7F000000).
UNKNOWN_SIZE = {4: 0x7EFFF000, 8: 2**62}  # by bytes of the number
OGG_PAGE = 27 + 255 + 255 * 255  # bytes, at most


class _Chunks(NamedTuple):
    """How a container of named chunks with their sizes is laid out."""

    first: int  # position of the first chunk in bytes
    name: int  # bytes of a name
    size: int  # bytes of a size
    order: Literal["little", "big"] = "little"
    counted: int = 0  # bytes of its header that a size counts
    step: int = 2  # chunks begin at multiples of this


CHUNKS = {
    b"RIFF": _Chunks(12, 4, 4),  # WAV
    b"RIFX": _Chunks(12, 4, 4, "big"),
    b"RF64": _Chunks(12, 4, 4),
    b"FORM": _Chunks(12, 4, 4, "big"),  # AIFF and SVX
    b"caff": _Chunks(8, 4, 8, "big", step=1),
    b"riff": _Chunks(40, 16, 8, counted=24, step=8),  # W64
}
SAMPLES = (b"data", b"SSND", b"BODY")  # names of the chunks of samples
NOTED = ("AVR", "MAT4", "MAT5", "MPC2K", "PAF", "VOC", "WVE")
AU: dict[bytes, Literal["little", "big"]] = {b".snd": "big", b"dns.": "little"}


def sound_path(path: str | Path) -> str | bytes:
    """A path as libsndfile takes it, also where the name cannot be decoded.

    Arguments
    ---------
    path : str or pathlib.Path
        The path.

    Returns
    -------
    str or bytes
        The same.
    """
    return str(path) if os.name == "nt" else os.fsencode(path)


def find_cut(file: BinaryIO, file_size: int) -> str:
    """Says what a file lacks, going by the sizes in its headers.

    Arguments
    ---------
    file : BinaryIO
        The file, at its beginning.
    file_size : int
        Its size in bytes.

    Returns
    -------
    str
        What is missing; nothing if all is there, nobody can know, or only
        libsndfile understands the container, see :func:`noted_as_cut`.

    Example
    -------
    >>> from io import BytesIO
    >>> wav = b"RIFF\\x2c\\0\\0\\0WAVEdata\\x20\\0\\0\\0" + bytes(30)
    >>> find_cut(BytesIO(wav), len(wav))
    '2 bytes missing'
    """
    start = file.read(16)
    missing = 0
    if start[:4] in CHUNKS:
        missing = _walk(file, file_size, CHUNKS[start[:4]])
    elif start[:4] in AU:
        begin, size = (
            int.from_bytes(number, AU[start[:4]])
            for number in (start[4:8], start[8:12])
        )
        missing = _lack(begin + size - file_size, size, 4)
    elif start[:2] == b"\xf0\x7e" and len(start) == 16:  # SDS: 7 bits a byte
        samples = start[10] | start[11] << 7 | start[12] << 14
        blocks = -(-samples // (120 // max(1, -(-start[6] // 7))))
        missing = max(0, 21 + 127 * blocks - file_size)
    elif start[:4] == b"OggS":
        return "its last page missing" if _has_no_end(file, file_size) else ""
    return f"{missing} bytes missing" if missing else ""


def noted_as_cut(sound: soundfile.SoundFile) -> bool:
    """Whether libsndfile notes on opening that there is less than promised.

    Arguments
    ---------
    sound : soundfile.SoundFile
        The file, just opened.

    Returns
    -------
    bool
        True for AVR, MAT4, MAT5, MPC2K, PAF, VOC and WVE that were cut short.
    """
    if sound.format not in NOTED:
        return False  # others may be noted for what does no harm
    notes = sound.extra_info
    promised = re.findall(r"\b(?:Frames|Cols)\s*: (\d+)", notes)
    return (
        any(int(count) > sound.frames for count in promised)
        or re.search(r"seems to be (a )?truncated", notes, re.I) is not None
        or re.search(r"^Data length \d+ should be", notes, re.M) is not None
    )


def _walk(file: BinaryIO, file_size: int, layout: _Chunks) -> int:
    """Bytes that the chunk of samples promises but lacks."""
    position, head = layout.first, layout.name + layout.size
    wide = 0  # sizes of RF64 that 32 bits do not hold
    while position + head <= file_size:
        file.seek(position)
        header = file.read(head)
        position += head
        size = int.from_bytes(header[layout.name :], layout.order)
        size = max(0, size - layout.counted)
        if header[:4] == b"ds64":
            wide = int.from_bytes(file.read(16)[8:], "little")
        if header[:4] in SAMPLES and wide and size == 2**32 - 1:
            return _lack(position + wide - file_size, wide, 8)
        if header[:4] in SAMPLES:
            return _lack(position + size - file_size, size, layout.size)
        position += size + -size % layout.step
    return 0


def _lack(missing: int, size: int, width: int) -> int:
    """Bytes missing of `size`, if that number of `width` bytes is one."""
    return max(0, missing) if size < UNKNOWN_SIZE[width] else 0


def _has_no_end(file: BinaryIO, file_size: int) -> bool:
    """Whether an Ogg file does not end with a whole page marked as last."""
    file.seek(max(0, file_size - OGG_PAGE))
    page = file.read()
    page = page[max(0, page.rfind(b"OggS")) :]
    # 5: flags; 26: number of segments, whose lengths follow.
    if len(page) < 27 or not page[5] & 4 or len(page) < 27 + page[26]:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])
