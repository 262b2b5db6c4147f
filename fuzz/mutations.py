"""Changes to files that keep enough of their structure to get past the first check.

Some keep all of it (`overwritten`, `array`, `sound_pickle`): other contents in a container that is
whole, for what readers do behind their first checks. The others damage the container as well.

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

import numpy as np

Mutate = Callable[[bytes, Random], bytes]

MAX_SIZE = 1 << 16
SOUND = 0.6
"""How often the container is left whole."""
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
_FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 100.0, -100.0, 25.0, 1e-9, 1e-45, 1e4, 1e20, -3e38,
    float("nan"), float("inf"),
)  # fmt: skip
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


def overwritten(data: bytes, rng: Random) -> bytes:
    """As many bytes, a few of them others: a number of two, four or eight, where one may be."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = rng.choice((1, 2, 4, 4, 8))
        if len(out) < size:
            continue
        place = size * rng.randrange(len(out) // size)
        value = rng.choice(_FLOATS)
        if size == 1 or rng.random() < 0.3:
            new = rng.randbytes(size)
        elif rng.random() < 0.3:
            new = rng.choice((0, 1, 3, 255, 2 ** (8 * size - 1) - 1)).to_bytes(size, "little")
        else:
            small = 0.0 if size == 2 and abs(value) > 6e4 else value
            new = struct.pack({2: "<e", 4: "<f", 8: "<d"}[size], small)
        out[place : place + size] = new
    return bytes(out)


_HEADER = re.compile(
    rb"\{'descr': '([<|](?:f[248]|[iu][1248]|b1|U\d{1,2}))', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,6},? ?)*)\), \}\s*"
)


def array(data: bytes, rng: Random) -> bytes:
    """A sound .npy file of other values, of another type or shape."""
    (length,) = struct.unpack_from("<H", data, 8) if len(data) > 10 else (0,)
    match = _HEADER.fullmatch(data[10 : 10 + length])
    body = data[10 + length :]
    if not match:
        return npy(data, rng)
    dtype = np.dtype(match[1].decode())
    shape = tuple(int(word) for word in re.findall(rb"\d+", match[2]))
    if not body or dtype.itemsize * int(np.prod(shape, dtype=float)) != len(body):
        return npy(data, rng)
    values = np.frombuffer(body, dtype).reshape(shape).copy()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = _other(values, rng)
    stream = io.BytesIO()
    np.save(stream, values[: MAX_SIZE // 16] if values.ndim else values, allow_pickle=False)
    return stream.getvalue()


def _other(values: np.ndarray, rng: Random) -> np.ndarray:
    kind = rng.randrange(8)
    if kind <= 3:
        flat = values.reshape(-1)
        for _ in range(rng.choice((1, 1, 4, len(flat)))):
            new: object = rng.choice(("", "jawOpen", "no", "x" * 99))
            if values.dtype.kind != "U":
                numbers = _FLOATS if values.dtype.kind == "f" else (-1, 0, 1, 2, 4, 5, 127, 2**31)
                new = np.float64(rng.choice(numbers)).astype(values.dtype)
            flat[rng.randrange(len(flat))] = new
    elif kind == 4 and values.dtype.kind != "U":
        return values.astype(rng.choice(("<f2", "<f4", "<f8", "|i1", "<i8", "|u1", "|b1", "<c8")))
    elif kind == 5 and values.ndim:
        row = rng.randrange(len(values))
        return rng.choice((values[:-1], values[:0], values[::-1], values[row : row + 1],
                           np.concatenate([values, values[row : row + 1]])))  # fmt: skip
    elif kind == 6:
        return rng.choice((values.reshape(-1), values.T, values[None], values[..., None],
                           np.repeat(values, 2, axis=-1 if values.ndim else None)))  # fmt: skip
    elif kind == 7 and values.ndim:
        return values[..., : rng.randrange(values.shape[-1] + 1)]
    return values


def npy(data: bytes, rng: Random) -> bytes:
    """A .npy file with another type, shape or header, the length of the header being right."""
    if not data.startswith(b"\x93NUMPY") or len(data) < 12 or rng.random() < 0.25:
        return raw(data, rng)
    (length,) = struct.unpack_from("<H", data, 8)
    if rng.random() < SOUND:
        if b"'|O'" in data[10 : 10 + length]:
            return data[: 10 + length] + sound_pickle(data[10 + length :], rng)
        if _HEADER.fullmatch(data[10 : 10 + length]):
            return array(data, rng)
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
    if rng.random() < SOUND:
        return sound_pickle(data, rng)
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


_TEXTS = {"BINUNICODE": 4, "SHORT_BINUNICODE": 1, "BINSTRING": 4, "SHORT_BINSTRING": 1}
_BYTES = {"BINBYTES": 4, "SHORT_BINBYTES": 1, "BINBYTES8": 8, "BYTEARRAY8": 8}
_COUNTS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NEWTRUE", "NEWFALSE", "NONE")


def sound_pickle(data: bytes, rng: Random) -> bytes:
    """A pickle of the same instructions with other numbers, texts and bytes, without frames."""
    try:
        found = [(op.name, place) for op, _, place in pickletools.genops(data)]
    except ValueError:
        return pickled(data, rng)
    places = [place or 0 for _, place in found]
    ends = [*places[1:], places[-1] + 1]
    parts = [
        [name, data[start:end]]
        for (name, start), end in zip(found, ends, strict=True)
        if name != "FRAME"
    ]
    texts = [part for part in parts if part[0] in _TEXTS]
    numbers = [part for part in parts if part[0] in _COUNTS]
    contents = [part for part in parts if part[0] in _BYTES]
    for _ in range(rng.choice((1, 1, 2, 4))):
        kinds = [kind for kind in (texts, numbers, contents, contents) if kind]
        if not kinds:
            return pickled(data, rng)
        part = rng.choice(rng.choice(kinds))
        name, code = part
        if name in _COUNTS:
            small = bytes([ord("K"), rng.choice((0, 1, 2, 3, 4, 5, 100))])
            part[1] = rng.choice((small, small, _number(rng)))
        elif name in _BYTES:
            part[1] = code[: 1 + _BYTES[name]] + overwritten(code[1 + _BYTES[name] :], rng)
        elif len(texts) > 1 and rng.random() < 0.3:
            part[:] = rng.choice(texts)
        else:
            head, rest = code[: 1 + _TEXTS[name]], bytearray(code[1 + _TEXTS[name] :])
            ascii_places = [place for place, byte in enumerate(rest) if byte < 128]
            if ascii_places:
                rest[rng.choice(ascii_places)] = rng.randrange(128)
            part[1] = head + bytes(rest)
    return b"".join(code for _, code in parts) + data[ends[-1] :]


def _number(rng: Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return b"K" + rng.randbytes(1)
    if kind == 1:
        return b"J" + struct.pack("<i", rng.choice((-1, 2**31 - 1, -(2**31), 300)))
    if kind == 2:
        return b"\x8a\x08" + struct.pack("<Q", 1 << rng.randrange(63))
    return b"G" + struct.pack(">d", rng.choice((float("nan"), float("inf"), 1e308, -0.0)))


Member = Callable[[str, bytes, Random], bytes]


def zipped(member: Member, sound: Member, kinds: tuple[int, ...]) -> Mutate:
    """A zip file, members of which are changed, and the whole zipped again in one of the ways."""

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
        if rng.random() < SOUND:
            for _ in range(rng.choice((1, 1, 2, 3))):
                changed = rng.choice(members)
                changed[1] = sound(changed[0], changed[1], rng)
        else:
            _change(members, member, rng)
        stream = io.BytesIO()
        kind = rng.choice(kinds)
        with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", kind) as archive:
            warnings.simplefilter("ignore")
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, compress_type=kind)
        return stream.getvalue()

    return mutate


def _change(members: list[list], member: Member, rng: Random) -> None:
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


def _npz_sound(name: str, content: bytes, rng: Random) -> bytes:
    return array(content, rng)


def _torch_sound(name: str, content: bytes, rng: Random) -> bytes:
    if name.endswith("data.pkl"):
        return sound_pickle(content, rng)
    return overwritten(content, rng) if "/data/" in name else content


def _torch_member(name: str, content: bytes, rng: Random) -> bytes:
    return pickled(content, rng) if name.endswith("data.pkl") else raw(content, rng)


npz: Mutate = zipped(_npz_member, _npz_sound, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
torch_zip: Mutate = zipped(
    _torch_member, _torch_sound, (*[zipfile.ZIP_STORED] * 4, zipfile.ZIP_DEFLATED)
)


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
    if rng.random() < SOUND:
        return head + end + overwritten(body, rng)
    return (text(head, rng) + end + body)[: 2 * MAX_SIZE]


def mat(data: bytes, rng: Random) -> bytes:
    """A .mat file, one element of which is changed inside, packed or not."""
    elements = []
    place = 128
    while place + 8 <= len(data):
        (size,) = struct.unpack_from("<I", data, place + 4)
        elements.append((place, place + 8 + size))
        place += 8 + size
    if not elements or rng.random() < 0.2:
        return raw(data, rng)
    start, end = rng.choice(elements)
    kind, inside = data[start : start + 4], data[start + 8 : end]
    packed = kind == struct.pack("<I", 15)
    try:
        inside = zlib.decompress(inside) if packed else inside
    except zlib.error:
        return raw(data, rng)
    if rng.random() < SOUND:
        behind = len(inside) // 2  # of the flags, the shape and the name
        inside = inside[:behind] + overwritten(inside[behind:], rng)
    else:
        inside = raw(inside, rng)
    inside = zlib.compress(inside) if packed else inside
    return data[:start] + kind + struct.pack("<I", len(inside)) + inside + data[end:]


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
