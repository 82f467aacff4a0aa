"""Forms as HTTP clients send them, taken apart."""

from __future__ import annotations

import httpx
import pytest

from vargpt_lightning.utils.http.multipart import MOST_PARTS, FormPart, MultipartError, parse_form

PNG = b"\x89PNG\r\n\r\n--\r\n--b\r\n\x00\xff\r\n"
FORM = "multipart/form-data; boundary=b"


def test_fields_and_files_come_as_they_were_sent() -> None:
    data = {"prompt": "make it réd\r\nplease", "n": "2"}
    files = [("image", ('a "b".png', PNG, "image/png")), ("image[]", ("c.png", b"", "image/png"))]
    request = httpx.Request("POST", "http://127.0.0.1/", data=data, files=files)
    parts = parse_form(request.read(), request.headers["content-type"])
    assert [(part.name, part.data) for part in parts] == [
        ("prompt", "make it réd\r\nplease".encode()),
        ("n", b"2"),
        ("image", PNG),
        ("image[]", b""),
    ]
    assert parts[0].text == "make it réd\r\nplease"
    assert [part.filename is None for part in parts] == [True, True, False, False]


def test_a_form_may_begin_with_a_preamble_and_end_with_more() -> None:
    body = b'hello\r\n--b\r\ncontent-disposition: form-data; name="a"\r\nX: y\r\n\r\n1\r\n--b--\r\nbye'
    assert parse_form(body, 'multipart/form-data; boundary="b"') == [FormPart("a", b"1")]
    assert parse_form(b"--b--\r\n", FORM) == []


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"{}", "application/json", "is not multipart/form-data with a boundary"),
        (b"--b--", "multipart/form-data", "is not multipart/form-data with a boundary"),
        (b"--b--", FORM + 70 * "b", "a boundary of 71 characters"),
        (b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1', FORM, "cut off"),
        (b"", FORM, "cut off"),
        (b"--b\r\n\r\n1\r\n--b--", FORM, "without a name|without an empty line"),
        (b"--b\r\nX: y\r\n\r\n1\r\n--b--", FORM, "without a name"),
        (b"--b\r\nX: y\r\n1\r\n--b--", FORM, "without an empty line"),
        (b"--b\r\n\r\n" * (MOST_PARTS + 1) + b"--b--", FORM, "more than 200 parts"),
    ],
)
def test_what_is_no_form_is_told(body: bytes, kind: str, told: str) -> None:
    with pytest.raises(MultipartError, match=told):
        parse_form(body, kind)


def test_a_text_that_is_no_text_is_told() -> None:
    with pytest.raises(MultipartError, match="the field 'a' is no UTF-8"):
        _ = FormPart("a", b"\xff").text
