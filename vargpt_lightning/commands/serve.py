"""`vargpt serve`: a trained run in the browser and behind OpenAI's API."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from vargpt_lightning.commands.options import add_sampling
from vargpt_lightning.inference.changed_settings import generation_settings
from vargpt_lightning.inference.named import check_model
from vargpt_lightning.inference.progress import make_fast
from vargpt_lightning.utils.arguments import Parser, whole
from vargpt_lightning.utils.errors import UserError, install_hint
from vargpt_lightning.utils.progress import importing, working
from vargpt_lightning.utils.signals import ended_by_signals

if TYPE_CHECKING:  # the sub-command's help must not wait for torch
    from vargpt_lightning.serving.limits import Limits

EXAMPLE = """examples:
  vargpt serve runs/openmoji                 then open http://127.0.0.1:8000
  curl http://127.0.0.1:8000/v1/images/generations -H 'Content-Type: application/json' \\
    -d '{"prompt": "Please draw a shamrock."}'
  vargpt serve runs/openmoji --host 0.0.0.0 --token-file token.txt
"""
NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client", "gradio": "gradio"}
TOKEN = "VARGPT_SERVE_TOKEN"


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    result = Parser(
        prog="vargpt serve",
        description="Try a run: a page for the browser, and OpenAI's API for programs.",
        epilog=EXAMPLE,
    )
    result.add_argument("run", help="the run folder")
    place = result.add_argument_group("where it listens")
    place.add_argument("--host", default="127.0.0.1", help="address (127.0.0.1); others need a token")
    place.add_argument("--port", type=whole(0, 65_535), default=8000, help="port, 0 for a free one (8000)")
    place.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"file with the token that clients must send (or ${TOKEN})"
    )
    place.add_argument("--name", help="what the model is called (the run folder's name)")
    place.add_argument("--no-page", action="store_true", help="the API alone")
    place.add_argument(
        "--allow-remote-pictures", action="store_true", help="fetch pictures from public addresses when asked to"
    )
    limits = result.add_argument_group("limits")
    for option, (_, text) in _LIMITS.items():
        limits.add_argument(f"--max-{option}", type=whole(1), metavar="N", help=text)
    add_sampling(result.add_argument_group("answers, where a request does not say otherwise"))
    return result


_LIMITS = {
    "batch": ("batch", "answers per batch (8)"),
    "queue": ("queue", "waiting answers (64)"),
    "requests": ("requests_a_minute", "requests per minute from one address (120)"),
    "characters": ("prompt_characters", "characters of a request's text (8000)"),
    "pictures": ("pictures", "pictures of a conversation (8)"),
    "picture-bytes": ("picture_bytes", "bytes of a picture's file (8 MiB)"),
    "picture-pixels": ("picture_pixels", "pixels of a picture (16000000)"),
    "body-bytes": ("body_bytes", "bytes of a request (24 MiB)"),
}


def main(argv: list[str]) -> int:
    """Serve until interrupted."""
    arguments = parser().parse_args(argv)
    check_installed(page=not arguments.no_page)
    check_model(arguments.run, arguments.stage, exported=False)
    with working(f"starting the server of {arguments.run}"), importing():
        from vargpt_lightning.inference.load import load_run
        from vargpt_lightning.serving.server import Service, http_server, listen
        from vargpt_lightning.training.data.request_examples import example_requests

    token = read_token(arguments.token_file)
    limits = limits_of(arguments)
    # Listened at before the model is loaded: a port that is taken is found at once.
    # uvicorn raises a SIGTERM again when it is done; as an exit it lets the page's folder be removed.
    with listen(arguments.host, arguments.port, token) as place, ended_by_signals():
        with working(f"loading {arguments.run}"):
            run = load_run(arguments.run, arguments.stage, arguments.device)
        make_fast(run, arguments.fast, arguments.compile)
        run.settings = generation_settings(run, arguments)
        name = arguments.name or run.folder.name
        page = not arguments.no_page
        logging.getLogger("httpx").setLevel(logging.WARNING)
        examples = example_requests(run.folder) if page else []
        service = Service(run, name, limits, token, arguments.allow_remote_pictures, page, examples)
        print(_welcome(name, run.stage.name, place, token is not None, page), flush=True)
        try:
            http_server(service).run(sockets=[place])
        finally:
            service.engine.stop()
    return 0


def limits_of(arguments: argparse.Namespace) -> Limits:
    """Return the limits with what the command line changes."""
    from vargpt_lightning.serving.limits import Limits

    given = {key: getattr(arguments, f"max_{option.replace('-', '_')}") for option, (key, _) in _LIMITS.items()}
    return Limits(**{key: value for key, value in given.items() if value is not None})


def check_installed(page: bool = True) -> None:
    """Say what is missing, and how to get it.

    Raises:
        UserError: a package of the extra `serve` is not there.
    """
    missing = [
        package
        for module, package in NEEDED.items()
        if (page or module != "gradio") and importlib.util.find_spec(module) is None
    ]
    if missing:
        raise UserError(f"{', '.join(missing)} not installed; {install_hint('serve')}")


def read_token(file: Path | None) -> str | None:
    """Return what clients must show: of the file, or of the environment; None where neither is given.

    Raises:
        UserError: the file cannot be read.
    """
    if file is None:
        return os.environ.get(TOKEN, "").strip() or None
    try:
        token = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token-file {file}: cannot be read ({error})") from error
    if not token:
        raise UserError(f"--token-file {file}: is empty; expected a token in it")
    return token


def _welcome(name: str, stage: str, place: socket.socket, token: bool, page: bool) -> str:
    host, port = place.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    lines = [f"{name}, after the stage {stage}. Ctrl-C stops it."]
    lines += [f"page:  {url}/{'?token=TOKEN' if token else ''}"] if page else []
    return "\n".join([*lines, f"API:   {url}/v1"])
