"""What of a request reaches the page: the guard before an application that notes what it is given."""

from __future__ import annotations

import asyncio
import io
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from PIL import Image

gr = pytest.importorskip("gradio")
from vargpt_lightning.serving.limits import Limits  # noqa: E402
from vargpt_lightning.serving.page_files import PageFiles  # noqa: E402
from vargpt_lightning.serving.page_guard import COOKIE, PageGuard  # noqa: E402

JOIN, UPLOAD, FILE = "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/file="


class Noting:
    """Stands for Gradio."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        self.seen.append((scope["path"], scope["query_string"].decode(), body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    @property
    def data(self) -> list[Any]:
        return json.loads(self.seen[-1][2])["data"]


class Guarded:
    def __init__(self) -> None:
        self.page, self.files = Noting(), PageFiles()
        inputs = [gr.MultimodalTextbox(), gr.JSON(), gr.State(None), gr.Slider(0, 10, 1, label="Guidance")]
        inputs += [gr.Number(minimum=-1, maximum=2**63 - 1, label="Seed")]
        functions: Any = {0: SimpleNamespace(inputs=inputs), 1: SimpleNamespace(inputs=[])}
        functions |= {2: SimpleNamespace(inputs=[gr.Chatbot()]), 3: SimpleNamespace(inputs=[gr.Image()])}
        limits = Limits(picture_bytes=10_000, pictures=3)
        self.app: Any = PageGuard(self.page, functions, self.files, limits)

    def browser(self, cookie: str | None = None, address: str = "127.0.0.1") -> Asking:
        cookies = {COOKIE: cookie} if cookie else None
        transport = httpx.ASGITransport(self.app, client=(address, 1))
        return Asking(httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies))


class Asking:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        return asyncio.run(self.client.request(method, path, **given))

    def upload(self, *contents: bytes, name: str = "a.png") -> httpx.Response:
        return self("POST", UPLOAD, files=[("files", (name, content)) for content in contents])

    def join(self, message: Any, *others: Any, **more: Any) -> httpx.Response:
        data = [message, *(others or ([], None, 1.5, 3))]
        return self("POST", JOIN, json={"fn_index": 0, "session_hash": "abc", "data": data, **more})


@pytest.fixture
def guarded() -> Guarded:
    return Guarded()


def png(colour: str = "red") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (5, 5), colour).save(content, "PNG")
    return content.getvalue()


def named(*names: Any) -> dict[str, Any]:
    return {"text": "?", "files": [{"path": name, "meta": {"_type": "gradio.FileData"}} for name in names]}


def test_an_upload_is_known_by_a_name_that_says_nothing_and_asked_about(guarded: Guarded) -> None:
    browser = guarded.browser("c" * 32)
    names = browser.upload(png("red"), png("blue"), name="../../x/evil.png").json()
    assert len(set(names)) == 2 and all("/" not in name and "evil" not in name for name in names)
    message = named(*names)
    message["files"][0]["url"] = "http://127.0.0.1:1/picture.png"
    assert browser.join(message).status_code == 200
    assert guarded.page.data == [{"text": "?", "files": []}, names, None, 1.5, 3], "Gradio is given no file"
    shown = browser("GET", FILE + names[0])
    assert shown.content == png("red") and shown.headers["content-type"] == "image/png"
    assert browser("GET", f"{FILE}{guarded.files.folder}/{names[1]}").content == png("blue")


@pytest.fixture
def lying(tmp_path: Path, guarded: Guarded) -> list[str]:
    """Names of pictures, and of what would stall whoever reads it, that nobody uploaded."""
    (tmp_path / "there.png").write_bytes(png())
    (tmp_path / "link.png").symlink_to(tmp_path / "there.png")
    os.mkfifo(tmp_path / "fifo.png")
    (guarded.files.folder / "beside.png").write_bytes(png())
    paths = [str(tmp_path / name) for name in ("there.png", "link.png", "fifo.png", "none.png", "")]
    paths += [f"{tmp_path}/../{tmp_path.name}/there.png", (tmp_path / "there.png").as_uri(), "/dev/zero", "there.png"]
    return [*paths, str(guarded.files.folder / "beside.png"), "beside.png", "http://127.0.0.1:1/a.png", "", "..", "/"]


def test_what_nobody_uploaded_is_not_taken(guarded: Guarded, lying: list[str]) -> None:
    browser = guarded.browser()
    (own,) = browser.upload(png()).json()
    for path in [*lying, f"{guarded.files.folder}/{own}", f"./{own}", own.upper(), None, 1, [own], {"path": own}]:
        assert browser.join(named(path)).status_code == 404, path
        assert browser.join(named(own, path)).status_code == 404, path
    for files in ("there.png", {"path": own}, [own], 7, [[own]]):
        assert browser.join({"text": "?", "files": files}).status_code >= 400, files
    assert guarded.page.seen == []


def test_what_nobody_uploaded_is_not_shown(guarded: Guarded, lying: list[str]) -> None:
    for path in lying:
        for written in {path, path.replace("/", "%2F"), path.replace(".", "%2e"), path.lstrip("/")}:
            assert guarded.browser()("GET", FILE + written).status_code == 404, written


def test_a_file_hidden_in_another_place_of_a_request_does_not_pass(guarded: Guarded, lying: list[str]) -> None:
    browser, there = guarded.browser(), lying[0]
    file = {"path": there, "url": there, "meta": {"_type": "gradio.FileData"}}
    history = [{"role": "user", "content": [{"type": "file", "file": file}]}]
    for hidden in (file, [file], history, there, {"text": file, "files": []}, {"text": "?", "file": file}):
        browser.join(hidden)
        browser.join({"text": "?", "files": []}, hidden, hidden, 1.5, 3, event_data=hidden, trigger_id=hidden)
        for number in (1, 2, 3):
            assert browser.join(hidden, fn_index=number).status_code == 400
            browser("POST", JOIN, json={"fn_index": number, "session_hash": "a", "data": [hidden]})
    assert guarded.page.seen and not any(there.encode() in body for _, _, body in guarded.page.seen)


def test_another_client_uses_and_sees_nothing(guarded: Guarded) -> None:
    first, second = guarded.browser("a" * 32), guarded.browser("b" * 32)
    (name,) = first.upload(png()).json()
    for other in (second, guarded.browser(), guarded.browser(address="10.0.0.1"), guarded.browser("a" * 31)):
        assert other.join(named(name)).status_code == 404 and other("GET", FILE + name).status_code == 404
    assert first.join(named(name)).status_code == 200


def test_a_browser_is_given_a_name_once(guarded: Guarded) -> None:
    given = guarded.browser()("GET", "/").headers["set-cookie"]
    assert "HttpOnly" in given and "SameSite=Strict" in given
    assert "set-cookie" not in guarded.browser("c" * 32)("GET", "/").headers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -0.1, 10.1, "1", True, None, [1], {"a": 1}])
def test_numbers_are_in_their_range(guarded: Guarded, value: Any) -> None:
    data = [{"text": "?", "files": []}, [], None, value, 3]
    content = json.dumps({"fn_index": 0, "session_hash": "abc", "data": data})
    answer = guarded.browser()("POST", JOIN, content=content)
    assert answer.status_code == 400 and guarded.page.seen == []
    message = answer.json()["error"]["message"]
    assert "Guidance" in message and "0 to 10" in message


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"null", b"[" * 100_000, b'{"fn_index": 0}', b'{"fn_index": 9, "data": []}', b"\xff"]
)
def test_bodies_that_are_no_request(guarded: Guarded, body: bytes) -> None:
    assert guarded.browser()("POST", JOIN, content=body).status_code == 400 and guarded.page.seen == []


def test_sizes_of_requests(guarded: Guarded) -> None:
    browser = guarded.browser()
    assert browser.upload(b"a" * 10_001).status_code == 413
    assert browser.upload(*[png()] * 4).status_code == 400
    assert browser.join({"text": "a" * 2**20, "files": []}).status_code == 413
    assert browser("POST", UPLOAD, content=b"x", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    assert not list(guarded.files.folder.iterdir())


def form(*contents: bytes, end: bytes = b"--cut--\r\n") -> bytes:
    head = b'--cut\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    return b"".join(head + content + b"\r\n" for content in contents) + end


BROKEN = {
    "nothing": b"",
    "no part": b"--cut--\r\n",
    "another boundary": form(png()).replace(b"--cut", b"--other"),
    "text": b"hello",
    "cut in the head": form(png())[:40],
    "cut in the picture": form(png())[:-30],
    "cut at the end": form(png(), end=b"--cut"),
    "cut in the second": form(png(), png())[:-30],
    "a field and no file": b'--cut\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--cut--\r\n',
}


@pytest.mark.parametrize("case", BROKEN)
def test_uploads_that_are_broken_are_refused_in_words(guarded: Guarded, case: str) -> None:
    browser, kind = guarded.browser(), {"Content-Type": "multipart/form-data; boundary=cut"}
    answer = browser("POST", UPLOAD, content=BROKEN[case], headers=kind)
    assert answer.status_code == 400 and "no form of files" in answer.json()["error"]["message"]
    assert not list(guarded.files.folder.iterdir()), "nothing is kept of it"
    assert len(browser("POST", UPLOAD, content=form(png()), headers=kind).json()) == 1


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_an_upload_of_another_kind_is_refused(guarded: Guarded, kind: str) -> None:
    answer = guarded.browser()("POST", UPLOAD, content=form(png()), headers={"Content-Type": kind})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_upload"


def test_no_more_paths_than_the_page_needs(guarded: Guarded) -> None:
    browser = guarded.browser()
    for path in ("/", "/config", "/assets/a-b.js", "/theme.css", "/gradio_api/heartbeat/abc", "/gradio_api/queue/data"):
        assert browser("GET", f"{path}?session_hash=abc&deep_link=x&view=api").status_code == 200
        assert guarded.page.seen[-1][:2] == (path, "session_hash=abc")
    kinds = ["proxy=http://a", "stream/a", "component_server", "call/answer", "call/v2/answer", "run/predict", "api/x"]
    kinds += [
        "custom_component/a/b/c/d",
        "process_recording",
        "deep_link",
        "upload_progress",
        "info",
        "vibe-edit",
        "runs",
    ]
    before = len(guarded.page.seen)
    for path in [f"/gradio_api/{kind}" for kind in kinds] + ["/file=a", "/file/a", "/assets/../a", "/monitoring"]:
        for method in ("GET", "POST", "PUT", "OPTIONS"):
            answer = browser(method, path)
            assert answer.status_code == 404 and answer.json()["error"]["code"], path
    assert len(guarded.page.seen) == before
