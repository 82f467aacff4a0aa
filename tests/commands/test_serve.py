from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from vargpt_lightning.commands import serve
from vargpt_lightning.commands.serve import limits_of, main, parser, read_token
from vargpt_lightning.serving.limits import Limits
from vargpt_lightning.utils.errors import UserError


def test_the_command_answers_until_it_is_interrupted(finished_run: Path) -> None:
    command = [sys.executable, "-m", "vargpt_lightning.cli", "serve", str(finished_run), "--port", "0", "--no-page"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("tiny, after the stage generation")
        url = server.stdout.readline().split()[-1]
        assert httpx.get(f"{url}/models").json()["data"][0]["id"] == "tiny"
        server.send_signal(signal.SIGINT)
        assert server.wait(30) in (0, 130)
        assert server.stderr is not None and "Traceback" not in server.stderr.read()


def test_sigterm_removes_the_pictures_of_the_page_while_a_page_is_open(finished_run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vargpt_lightning.cli", "serve", str(finished_run), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None and server.stderr is not None
        server.stdout.readline()
        url = server.stdout.readline().split()[-1]
        with httpx.stream("GET", f"{url}gradio_api/heartbeat/tab", timeout=60) as heartbeat:
            assert heartbeat.status_code == 200
            assert list(tmp_path.glob("vargpt-page-*"))
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 143
        assert not list(tmp_path.glob("vargpt-page-*"))
        assert "Traceback" not in server.stderr.read()


def test_a_missing_extra_is_named(monkeypatch, finished_run: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name))
    with pytest.raises(UserError, match=r"gradio not installed; pip install -e '\.\[serve\]'"):
        main([str(finished_run)])
    serve.check_installed(page=False)


def test_others_are_let_in_with_a_token_only(monkeypatch, finished_run: Path, tmp_path: Path) -> None:
    monkeypatch.delenv("VARGPT_SERVE_TOKEN", raising=False)
    with pytest.raises(UserError, match="expected a token"):
        main([str(finished_run), "--host", "0.0.0.0"])
    (tmp_path / "token").write_text("a-long-enough-token\n")
    assert read_token(tmp_path / "token") == "a-long-enough-token" and read_token(None) is None
    monkeypatch.setenv("VARGPT_SERVE_TOKEN", "another-long-token")
    assert read_token(None) == "another-long-token"
    (tmp_path / "empty").touch()
    for name in ("empty", "missing"):
        with pytest.raises(UserError, match="--token-file"):
            read_token(tmp_path / name)


def test_a_port_that_is_taken_is_said_at_once(finished_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port} cannot be listened at"):
            main([str(finished_run), "--port", str(port), "--no-page"])


def test_limits_come_from_the_command_line() -> None:
    arguments = parser().parse_args(["run", "--max-batch", "3", "--max-picture-bytes", "9"])
    assert limits_of(arguments) == Limits(batch=3, picture_bytes=9)
    with pytest.raises(UserError, match=r"--max-queue: .0.; expected"):
        limits_of(parser().parse_args(["run", "--max-queue", "0"]))
