"""Pictures that come with a request: data URLs, and remote URLs where they are allowed."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from urllib.parse import unquote_to_bytes, urlsplit

import httpx
from PIL import Image

from vargpt_lightning.data.images.picture_files import PictureError, TooManyPixelsError, decode_picture
from vargpt_lightning.serving.limits import Limits, RefusedRequestError

PORTS = {"http": 80, "https": 443}
SECONDS = 20.0  # for a whole remote picture


def read_picture(data: bytes, limits: Limits, param: str | None = None) -> Image.Image:
    """Decode a picture's file.

    Raises:
        RefusedRequestError: it is too large, or no picture.
    """
    if len(data) > limits.picture_bytes:
        raise _refused(f"a picture of {len(data)} bytes; expected {limits.picture_bytes} at most", "too_large", param)
    try:
        return decode_picture(data, "the picture", limits.picture_pixels)
    except TooManyPixelsError as error:
        raise _refused(str(error), "too_large", param) from error
    except PictureError as error:
        text = f"{len(data)} bytes that are no picture; expected PNG, JPEG, WebP or GIF"
        raise _refused(text, "invalid_image", param) from error


def picture_from_url(url: str, limits: Limits, remote: bool = False, param: str | None = None) -> Image.Image:
    """Return the picture of a data URL, or of a remote one where `remote` says so.

    Raises:
        RefusedRequestError: the URL is of another kind or not allowed, or what is there is no picture.
    """
    if url[:5].lower() == "data:":
        return read_picture(_data(url, limits, param), limits, param)
    if urlsplit_scheme(url) not in PORTS:
        text = f"image_url begins with {url[:16]!r}; expected a data URL: data:image/png;base64,..."
        raise _refused(text, "invalid_image_url", param)
    if not remote:
        text = "remote picture URLs are not fetched by this server; send the picture itself: data:image/png;base64,..."
        raise _refused(text, "remote_image_refused", param)
    return read_picture(fetch(url, limits.picture_bytes), limits, param)


def urlsplit_scheme(url: str) -> str:
    """Return the scheme of a URL, "" where it has none."""
    return url.partition(":")[0].lower()


def _data(url: str, limits: Limits, param: str | None) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise _refused("a data URL without a comma; expected data:image/png;base64,...", "invalid_image_url", param)
    if len(body) > limits.picture_bytes * 3:  # before it is decoded; base64 needs 4 / 3, percent signs 3
        raise _refused(f"a data URL of {len(body)} characters is too long", "too_large", param)
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(re.sub(r"\s+", "", body), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refused(f"a data URL that is no base64 ({error})", "invalid_image_url", param) from error


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet; the IPv4 address inside of an IPv6 one counts as well."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        teredo = found.teredo
        nat64 = found in ipaddress.ip_network("64:ff9b::/96")
        inner = [found.ipv4_mapped, found.sixtofour, *(teredo or ())]
        inner += [ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)] if nat64 or int(found) >> 32 == 0 else []
        if any(one is not None and not is_public(str(one)) for one in inner):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def fetch(url: str, most: int, allowed: Callable[[str], bool] = is_public) -> bytes:
    """Return what a remote URL holds, `most` bytes at the most.

    The name is resolved once, all its addresses must be `allowed`, and the connection goes to the one that was looked
    at: a name that changes its mind reaches nothing else. Redirects and proxies are not followed.

    Raises:
        RefusedRequestError: an address is not allowed, or nothing usable came back.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme.lower()]
        address = _resolve(host, port, allowed)
        literal = f"[{address}]" if ":" in address else address
        target = httpx.URL(url).copy_with(host=literal, port=port, username="", password="")
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        if isinstance(error, RefusedRequestError):
            raise
        raise _refused(f"image_url is no usable URL ({error})", "invalid_image_url") from error
    headers = {"Host": parts.netloc.rpartition("@")[2], "Accept": "image/*", "Accept-Encoding": "identity"}
    until, content = time.monotonic() + SECONDS, bytearray()
    try:
        with (
            httpx.Client(trust_env=False, follow_redirects=False, timeout=5.0) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            if response.status_code != 200:
                raise _refused(f"image_url answered with HTTP {response.status_code}; expected 200", "image_not_found")
            for piece in response.iter_raw():
                content += piece
                if len(content) > most:
                    raise _refused(f"image_url holds more than {most} bytes", "too_large")
                if time.monotonic() > until:
                    raise _refused(f"image_url took longer than {SECONDS:g} s", "image_not_found")
    except httpx.HTTPError as error:
        # What exactly went wrong would map the network for whoever asks.
        raise _refused("image_url cannot be fetched", "image_not_found") from error
    return bytes(content)


def _resolve(host: str, port: int, allowed: Callable[[str], bool]) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _refused("image_url cannot be fetched", "image_not_found") from error
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(allowed(address) for address in addresses):
        raise _refused("image_url leads to an address that is not public", "remote_image_refused")
    return addresses[0]


def _refused(message: str, code: str, param: str | None = "messages") -> RefusedRequestError:
    return RefusedRequestError(message, 413 if code == "too_large" else 400, code, param or "messages")
