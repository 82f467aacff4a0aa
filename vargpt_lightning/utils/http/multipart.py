"""Bodies of the type multipart/form-data taken apart (RFC 7578): fields and files, in their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.message import Message

MOST_PARTS = 200
_MOST_HEAD = 8192  # bytes of a part's headers
_LONGEST_BOUNDARY = 70


class MultipartError(ValueError):
    """What is wrong with a body."""


@dataclass(frozen=True)
class FormPart:
    """A field, or a file where it has a file's name."""

    name: str
    data: bytes = field(repr=False)
    filename: str | None = None

    @property
    def text(self) -> str:
        """The field's text.

        Raises:
            MultipartError: it is no UTF-8.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise MultipartError(f"the field {self.name!r} is no UTF-8") from error


def parse_form(body: bytes, content_type: str) -> list[FormPart]:
    """Return the parts of a body; `content_type` is the header's value, with the boundary.

    Raises:
        MultipartError: it is another type, cut off, or a part has no name or too many headers.
    """
    kind = _header("content-type", content_type)
    boundary = kind.get_param("boundary")
    if kind.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise MultipartError("Content-Type is not multipart/form-data with a boundary")
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise MultipartError(f"a boundary of {len(boundary)} characters; expected 1 to {_LONGEST_BOUNDARY}, ASCII")
    mark = b"\r\n--" + boundary.encode()
    # the first mark may stand at the very beginning
    pieces = (b"\r\n" + body).split(mark, MOST_PARTS + 2)
    if len(pieces) > MOST_PARTS + 2:
        raise MultipartError(f"more than {MOST_PARTS} parts")
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise MultipartError("the body is cut off: its closing boundary is missing")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> FormPart:
    head, blank, data = piece.partition(b"\r\n\r\n")
    if not blank or len(head) > _MOST_HEAD or head[:2] != b"\r\n":
        raise MultipartError("a part without an empty line behind its headers")
    lines = head[2:].decode("utf-8", "replace").split("\r\n")
    told = [value.strip() for name, _, value in (line.partition(":") for line in lines) if _is_disposition(name)]
    disposition = _header("content-disposition", told[0] if told else "")
    name = disposition.get_param("name", header="content-disposition")
    if disposition.get_content_disposition() != "form-data" or not isinstance(name, str) or not name:
        raise MultipartError("a part without a name; expected Content-Disposition: form-data; name=...")
    return FormPart(name, data, disposition.get_filename())


def _is_disposition(name: str) -> bool:
    return name.strip().lower() == "content-disposition"


def _header(name: str, value: str) -> Message:
    message = Message()
    message[name] = " ".join(value.splitlines())
    return message
