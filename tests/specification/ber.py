"""Rewrites the outer layers of a signed message in the forms that BER allows and DER does not."""

from __future__ import annotations

from base64 import encodebytes
from dataclasses import dataclass

SEQUENCE = 0x30
OCTET_STRING = 0x04
CONSTRUCTED_OCTET_STRING = 0x24
EXPLICIT_0 = 0xA0
END_OF_CONTENTS = b"\0\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One tag with its value; the value of a constructed one holds elements."""

    tag: int
    value: bytes

    @property
    def parts(self) -> list[Element]:
        found, rest = [], self.value
        while rest:
            element, rest = read(rest)
            found.append(element)
        return found


def read(encoded: bytes) -> tuple[Element, bytes]:
    """The first element in DER, and what follows it."""
    length, start = encoded[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(encoded[2:start], "big")
    return Element(tag=encoded[0], value=encoded[start : start + length]), encoded[start + length :]


def write(tag: int, value: bytes) -> bytes:
    """With a definite length."""
    if len(value) < 0x80:
        return bytes([tag, len(value)]) + value
    length = len(value).to_bytes((len(value).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + value


def write_indefinite(tag: int, value: bytes) -> bytes:
    """With an end mark instead of a length."""
    return bytes([tag, 0x80]) + value + END_OF_CONTENTS


def octets(content: bytes, *, depth: int, indefinite: bool) -> bytes:
    """An OCTET STRING in pieces: pieces of pieces, `depth` times; 0 is one primitive string."""
    if depth == 0:
        return write(OCTET_STRING, content)
    middle = len(content) // 2
    pieces = [
        octets(half, depth=depth - 1, indefinite=indefinite) for half in (content[:middle], content[middle:])
    ]
    return (write_indefinite if indefinite else write)(CONSTRUCTED_OCTET_STRING, b"".join(pieces))


def rewrite(message: bytes, *, depth: int, indefinite: bool) -> bytes:
    """The same signed message, with its content in pieces and its outer lengths as told."""
    put = write_indefinite if indefinite else write
    kind, explicit = read(message)[0].parts
    version, digests, content_info, *rest = explicit.parts[0].parts
    content_kind, content = content_info.parts
    text = content.parts[0].value
    new_content = put(EXPLICIT_0, octets(text, depth=depth, indefinite=indefinite))
    new_info = put(SEQUENCE, write(content_kind.tag, content_kind.value) + new_content)
    signed = b"".join(write(part.tag, part.value) for part in (version, digests))
    signed += new_info + b"".join(write(part.tag, part.value) for part in rest)
    return put(SEQUENCE, write(kind.tag, kind.value) + put(EXPLICIT_0, put(SEQUENCE, signed)))


def pem(message: bytes, label: str = "PKCS7") -> str:
    """The text form of the message."""
    return f"-----BEGIN {label}-----\n{encodebytes(message).decode()}-----END {label}-----\n"
