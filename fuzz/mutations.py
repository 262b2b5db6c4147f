"""Changes to files that keep enough of their structure to get past the first check.

Everything follows from the random generator, so that a seed repeats a file.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random

Mutate = Callable[[bytes, Random], bytes]

MAX_SIZE = 1 << 16
_NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "5",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "1099511627776",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e9",
    "1e38",
    "1e39",
    "1e308",
    "1e309",
    "-1e308",
    "1e-320",
    "NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "inf",
    "0.5",
    "-0.0",
    "true",
    "null",
]
_DTYPES = [
    "<f4",
    "<f8",
    "<f2",
    ">f4",
    "<i1",
    "|i1",
    "<i8",
    "<u4",
    "<c8",
    "|b1",
    "<U0",
    "<U1",
    "<U9",
    "|S0",
    "|S3",
    "|V0",
    "|V8",
    "|O",
    "<M8",
    "<m8[s]",
    "<f16",
    "<U1000000",
    "<q",
    "x",
]
_SHAPES = [
    "(",
    "(0,",
    "(1,",
    "(-1,",
    "(1099511627776,",
    "(4294967296, 4294967296",
    "(0, 18446744073709551616",
    "(-2, -2",
    "(1, 1, 1, 1",
    "(True,",
    "(2.5,",
    "('a',",
    "(None,",
    "[3] 7 ((1,),)",
]
_JSON_BITS = ("[", "]", "{", "}", "{}", "[]", '""', ",", ":", '"\\ud800"', "[[[[[[[[", "1e999")
_GLOBALS = (
    b"cos\nsystem\n", b"cbuiltins\neval\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.storage\n_load_from_bytes\n", b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n",
    b"c__builtin__\nobject\n", b"ccopy_reg\n_reconstructor\n", b"ctorch\nSize\n",
)  # fmt: skip
_OPCODES = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu}])GB\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x94\x96"


def raw(data: bytes, rng: Random) -> bytes:
    """A few bytes changed, moved, repeated or cut off."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and place < len(out):
            out[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 2:
            out[place:place] = rng.randbytes(rng.choice((1, 2, 4, 8)))
        elif kind == 3:
            out[place : place + 8] = struct.pack("<Q", 1 << rng.randrange(64))
        elif kind == 4:
            end = place + rng.randrange(1, 64)
            other = rng.randrange(len(out) + 1)
            out[other:other] = out[place:end] * rng.choice((1, 1, 1, 16))
        else:
            del out[place : place + rng.choice((1, 2, 8, 64, len(out)))]
        if not out:
            out += b"\0"
    return bytes(out[:MAX_SIZE])


def npy(data: bytes, rng: Random) -> bytes:
    """A .npy file with another type, shape or header, the length of the header being right."""
    if not data.startswith(b"\x93NUMPY") or len(data) < 12 or rng.random() < 0.25:
        return raw(data, rng)
    (length,) = struct.unpack_from("<H", data, 8)
    header, body = data[10 : 10 + length].decode("latin1"), data[10 + length :]
    kind = rng.randrange(5)
    if kind == 0:
        header = re.sub(r"'descr': [^,]*,", f"'descr': '{rng.choice(_DTYPES)}',", header)
    elif kind == 1:
        shape = rng.choice(_SHAPES)
        shape += ")" if shape.startswith("(") and not shape.endswith(")") else ""
        header = re.sub(r"'shape': \([^)]*\)", lambda _: f"'shape': {shape}", header)
    elif kind == 2:
        header = raw(header.encode("latin1"), rng).decode("latin1")
    elif kind == 3:
        header = rng.choice(("(" * 99, "-" * 3000 + "1", "{1: 2, 'a': 3}", "[" * 300, "'", "1j"))
    else:
        body = raw(body, rng)
    encoded = header.encode("latin1")[:65535]
    return data[:8] + struct.pack("<H", len(encoded)) + encoded + body


def pickled(data: bytes, rng: Random) -> bytes:
    """A pickle with instructions left out, repeated, moved, or others put in."""
    try:
        places = [place for _, _, place in pickletools.genops(data) if place is not None]
    except ValueError:  # damaged by a mutation before: what is left is to damage its bytes
        places = []
    if len(places) < 2 or rng.random() < 0.2:
        return raw(data, rng)
    ends = [*places[1:], places[-1] + 1]
    parts = [data[start:end] for start, end in zip(places, ends, strict=True)]
    rest = data[ends[-1] :]
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(parts))
        kind = rng.randrange(8)
        if kind == 0 and len(parts) > 1:
            del parts[place]
        elif kind == 1:
            parts.insert(rng.randrange(len(parts) + 1), parts[place])
        elif kind == 2:
            other = rng.randrange(len(parts))
            parts[place], parts[other] = parts[other], parts[place]
        elif kind == 3:
            parts.insert(place, rng.choice(_GLOBALS) + rng.choice((b"", b")R", b")\x81")))
        elif kind == 4:
            parts.insert(place, bytes([rng.choice(_OPCODES)]))
        elif kind == 5:
            parts.insert(place, _number(rng))
        elif kind == 6:
            parts[place] = parts[place][:1] + raw(parts[place][1:], rng)
        else:
            count = rng.choice((3, 30))
            parts.insert(place, b"(" + b"2" * count + b"l" if place else b"]")
    return (b"".join(parts) + rest)[:MAX_SIZE]


def _number(rng: Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return b"K" + rng.randbytes(1)
    if kind == 1:
        return b"J" + struct.pack("<i", rng.choice((-1, 2**31 - 1, -(2**31), 300)))
    if kind == 2:
        return b"\x8a\x08" + struct.pack("<Q", 1 << rng.randrange(63))
    return b"G" + struct.pack(">d", rng.choice((float("nan"), float("inf"), 1e308, -0.0)))


def zipped(member: Callable[[str, bytes, Random], bytes]) -> Mutate:
    """A zip file, one member of which is changed, and the whole zipped again."""

    def mutate(data: bytes, rng: Random) -> bytes:
        if rng.random() < 0.15:
            return raw(data, rng)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                infos = archive.infolist()[:64]
                if sum(info.file_size for info in infos) > 4 * MAX_SIZE:
                    return raw(data, rng)
                members = [[info.filename, archive.read(info)] for info in infos]
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, EOFError, zlib.error):
            return raw(data, rng)
        if not members:
            return raw(data, rng)
        _change(members, member, rng)
        stream = io.BytesIO()
        kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED))
        with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", kind) as archive:
            warnings.simplefilter("ignore")
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
        return stream.getvalue()

    return mutate


def _change(
    members: list[list], member: Callable[[str, bytes, Random], bytes], rng: Random
) -> None:
    place = rng.randrange(len(members))
    name, content = members[place]
    kind = rng.randrange(8)
    if kind == 0 and len(members) > 1:
        del members[place]
    elif kind == 1:
        members.append([name, member(name, content, rng)])
    elif kind == 2:
        other = rng.choice(members)[0]
        members[place][0] = rng.choice((other, "../../" + name, "/" + name, "²" + name, "x.npy"))
    elif kind == 3:
        members[place][1] = rng.choice(members)[1]
    else:
        members[place][1] = member(name, content, rng)


def _npz_member(name: str, content: bytes, rng: Random) -> bytes:
    return npy(content, rng)


def _torch_member(name: str, content: bytes, rng: Random) -> bytes:
    return pickled(content, rng) if name.endswith("data.pkl") else raw(content, rng)


npz: Mutate = zipped(_npz_member)
torch_zip: Mutate = zipped(_torch_member)


def text(data: bytes, rng: Random) -> bytes:
    """A text whose numbers, brackets, words or lines are changed."""
    if rng.random() < 0.15:
        return raw(data, rng)
    source = data.decode("utf-8", "surrogateescape")
    kind = rng.randrange(6)
    if kind <= 1 and (found := list(re.finditer(r"-?\d+(\.\d+)?([eE]-?\d+)?", source))):
        match = rng.choice(found)
        number = rng.choice((*_NUMBERS, "9" * 5000, "²", "1_0"))
        source = source[: match.start()] + number + source[match.end() :]
    elif kind == 2:
        place = rng.randrange(len(source) + 1)
        bit = rng.choice(_JSON_BITS) * rng.choice((1, 1, 1, 2000))
        source = source[:place] + bit + source[place:]
    elif kind == 3 and (words := re.findall(r"\w+", source)):
        source = source.replace(rng.choice(words), rng.choice(words), 1)
    elif kind == 4 and len(lines := source.splitlines(keepends=True)) > 1:
        place = rng.randrange(len(lines))
        lines.insert(rng.randrange(len(lines)), lines[place])
        if rng.random() < 0.5:
            del lines[rng.randrange(len(lines))]
        source = "".join(lines)
    else:
        start = rng.randrange(len(source) + 1)
        end = start + rng.randrange(1, 40)
        source = source[:end] + source[start:end] * rng.choice((1, 50)) + source[end:]
    return source.encode("utf-8", "surrogateescape")[:MAX_SIZE]


def ply(data: bytes, rng: Random) -> bytes:
    """A PLY file with a changed header, or changed numbers behind it."""
    head, end, body = data.partition(b"end_header\n")
    if not end or rng.random() < 0.1:
        return raw(data, rng)
    if rng.random() < 0.5:
        out = bytearray(body)
        for _ in range(rng.choice((1, 2, 8))):
            if len(out) >= 4:
                place = 4 * rng.randrange(len(out) // 4)
                value = rng.choice((float("nan"), float("inf"), 3e38, -3e38, 1e-45, 0.0, 1e20))
                out[place : place + 4] = struct.pack("<f", value)
        return head + end + bytes(out)
    return (text(head, rng) + end + body)[: 2 * MAX_SIZE]


def mat(data: bytes, rng: Random) -> bytes:
    """A .mat file, one compressed element of which is changed inside."""
    if len(data) < 144 or rng.random() < 0.3:
        return raw(data, rng)
    kind, size = struct.unpack_from("<II", data, 128)
    if kind != 15:
        return data[:128] + raw(data[128:], rng)
    try:
        inside = zlib.decompress(data[136 : 136 + size])
    except zlib.error:
        return raw(data, rng)
    packed = zlib.compress(raw(inside, rng))
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed + data[136 + size :]


def safetensors(data: bytes, rng: Random) -> bytes:
    """A safetensors file with another header, whose length is right."""
    if len(data) < 8 or rng.random() < 0.3:
        return raw(data, rng)
    (length,) = struct.unpack_from("<Q", data)
    header, body = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.2:
        huge = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
        header = json.dumps({"embedding": huge}).encode()
    else:
        header = text(header, rng)
    return struct.pack("<Q", len(header)) + header + body
