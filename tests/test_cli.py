from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vargpt_lightning import __version__
from vargpt_lightning.cli import COMMANDS, main
from vargpt_lightning.utils.errors import UserError

VARGPT = str(Path(sys.executable).with_name("vargpt"))
HEAVY = ("torch", "lightning", "transformers", "jsonargparse", "numpy", "rich", "yaml")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[list[str]], Any]], None]:
    """Put a function in the place of the sub-command `runs`."""

    def put(function: Callable[[list[str]], Any]) -> None:
        module = types.ModuleType("vargpt_lightning.commands.runs")
        module.main = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


def raises(error: BaseException) -> Callable[[list[str]], int]:
    def run(argv: list[str]) -> int:
        raise error

    return run


def test_help_answers_at_once() -> None:
    """The best of five starts of the installed command: under 0.3 s on two cores."""
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = subprocess.run([VARGPT, "--help"], capture_output=True, text=True, timeout=60)
        seconds.append(time.perf_counter() - began)
    assert all(name in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.3


def heavy_modules_after(*arguments: str) -> list[str]:
    code = (
        "import sys; from vargpt_lightning.cli import main\n"
        f"main({list(arguments)!r})\n"
        f"print('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()[-1].split()[1:]


def test_help_imports_nothing_heavy() -> None:
    assert heavy_modules_after("--help") == []
    assert heavy_modules_after("generat") == []


@pytest.mark.parametrize("name", ["evaluate", "generate", "chat"])
def test_a_commands_own_help_does_not_wait_for_torch(name: str) -> None:
    assert not {"torch", "lightning", "transformers"} & set(heavy_modules_after(name, "--help"))


def test_a_table_of_runs_does_not_wait_for_torch(tmp_path: Path) -> None:
    assert "torch" not in heavy_modules_after("runs", str(tmp_path))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"fit"}))
def test_a_commands_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"  vargpt {name} " in capsys.readouterr().out.partition("example")[2]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vargpt {__version__}\n"


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "hint"), [("genrate", "did you mean 'generate'?"), ("zzz", f"there are: {', '.join(COMMANDS)}")]
)
def test_an_unknown_command_names_the_nearest(typed: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 2
    assert capsys.readouterr().err.startswith(f"vargpt: error: unknown command '{typed}'; {hint}")


def test_the_command_gets_its_arguments_and_its_code_is_returned(command) -> None:
    got: list[list[str]] = []
    command(lambda argv: got.append(argv) or 3)
    assert main(["runs", "a", "--debug", "-b"]) == 3
    assert got == [["a", "-b"]]


def test_debug_after_two_hyphens_is_the_commands(command) -> None:
    got: list[list[str]] = []
    command(lambda argv: got.append(argv))
    assert main(["runs", "--", "--debug"]) == 0
    assert got == [["--", "--debug"]]


def test_a_persons_mistake_is_one_line(command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raises(UserError("stages.a.lr=-1;\n  expected a positive number")))
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == "vargpt: error: stages.a.lr=-1; expected a positive number\n"


def test_a_mistake_found_by_a_loaders_worker_is_one_line(command, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback:\n  File "x"\nUserError: shard 3 is cut'
    )
    command(raises(UserError(text)))
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == "vargpt: error: shard 3 is cut\n"


def test_debug_shows_the_traceback_too(command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raises(UserError("wrong")))
    assert main(["--debug", "runs"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said and said.endswith("vargpt: error: wrong\n")


def test_a_fault_of_the_program_keeps_its_traceback(command) -> None:
    command(raises(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        main(["runs"])


def full_disk_behind_another_error() -> BaseException:
    error = RuntimeError("checkpoint could not be written")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/last.ckpt")
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/runs/last.ckpt"),
        full_disk_behind_another_error(),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_said_in_one_line(error: BaseException, command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raises(error))
    assert main(["runs"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("vargpt: error: the disk is full") and said.count("\n") == 1
    assert ("/runs/last.ckpt" in said) == (not isinstance(error, RuntimeError) or error.__cause__ is not None)


def test_a_forbidden_file_is_said_in_one_line(command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raises(PermissionError(errno.EACCES, "Permission denied", "/root/run.json")))
    assert main(["runs"]) == 2
    assert "no permission while opening /root/run.json" in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: os.makedirs(path)])
def test_a_folder_that_cannot_be_made_is_said_in_one_line(make, command, capsys: pytest.CaptureFixture[str]) -> None:
    command(lambda argv: make(Path("/dev/null/x")))
    assert main(["runs"]) == 2
    assert capsys.readouterr().err.startswith("vargpt: error: /dev/null/x: no folder can be made there (Not a dir")
    command(lambda argv: Path("/dev/null/x").read_text())
    with pytest.raises(NotADirectoryError):
        main(["runs"])


def test_an_interruption_is_130(command, capsys: pytest.CaptureFixture[str]) -> None:
    command(raises(KeyboardInterrupt()))
    assert main(["runs"]) == 130
    assert capsys.readouterr().err == "\nvargpt: interrupted\n"


@pytest.mark.parametrize(("code", "returned"), [(None, 0), (4, 4), ("no good", 2)])
def test_an_exit_of_the_command_is_returned(code: Any, returned: int, command) -> None:
    command(raises(SystemExit(code)))
    assert main(["runs"]) == returned


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 141), (["runs", "--help"], 0), (["runs", "."], 1)])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str], code: int) -> None:
    """Nobody reads the complaint; argparse and rich, which notice first, have exit codes of their own."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [VARGPT, *arguments], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, env=environment
        )
    finally:
        os.close(write)
    assert done.stderr == "" and done.returncode == code
