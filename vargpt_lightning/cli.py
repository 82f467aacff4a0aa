"""The `vargpt` command: finds the sub-command, imports its code, and turns what goes wrong into one line and an exit
code.

Nothing but `os` and `sys` is imported until it is needed, so that `vargpt --help` answers at once. Exit codes: 0 done,
2 something that the person can put right, 130 interrupted from the keyboard, 141 the reader of a pipe went away.
"""

from __future__ import annotations

import os
import sys

from vargpt_lightning.commands import COMMANDS

VERSION = ("version", "-V", "--version")
HELP = ("-h", "--help", "help")
FOLDER_MAKERS = ("mkdir", "makedirs")


def usage() -> str:
    """Return the text of `vargpt --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vargpt COMMAND [ARGUMENTS] [--debug]",
            "",
            "Build, train, sample and evaluate models that answer questions about pictures and draw pictures.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  -h, --help  show this text; `vargpt COMMAND --help` shows a command's own, with an example",
            "  --version   show the version; so does `vargpt version`",
            "  --debug     show the whole traceback of an error, and what Lightning says",
            "",
            "example:",
            "  vargpt fit -c experiments/openmoji.yaml",
            "",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments without the program's name; those of the process when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = _take_debug(arguments)
    if debug:
        os.environ["VARGPT_DEBUG"] = "1"  # for the commands, and the processes that they start
    if not arguments or arguments[0] in HELP:
        return _write(usage(), code=0 if arguments else 2)
    if arguments[0] in VERSION:
        from vargpt_lightning import __version__

        return _write(f"vargpt {__version__}\n")
    if arguments[0] not in COMMANDS:
        return _fail(_unknown(arguments[0]))
    try:
        return _dispatch(arguments[0], arguments[1:])
    except BrokenPipeError:
        return _quiet_pipe()
    except KeyboardInterrupt:
        sys.stderr.write("\nvargpt: interrupted\n")
        return 130
    except Exception as error:
        message = _explain(error)
        if message is None:
            raise
        if debug:
            import traceback

            traceback.print_exc()
        return _fail(message)


def _take_debug(arguments: list[str]) -> bool:
    """Take every `--debug` before a `--` out of the arguments; True when there was one."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    debug = len(kept) < end
    arguments[:end] = kept
    return debug


def _dispatch(name: str, arguments: list[str]) -> int:
    """Import the command's module and call its `main`; argparse's exit becomes a return value."""
    import importlib

    try:
        code = importlib.import_module(f"vargpt_lightning.commands.{name}").main(arguments)
    except SystemExit as stop:
        code = stop.code if stop.code is None or isinstance(stop.code, int) else _fail(str(stop.code))
    sys.stdout.flush()  # a reader that went away is noticed here, not while the interpreter shuts down
    return int(code or 0)


def _unknown(name: str) -> str:
    from vargpt_lightning.utils.errors import nearest

    close = nearest(name, (*COMMANDS, VERSION[0], "help"), cutoff=0.5)
    hint = f"did you mean '{close}'?" if close else f"there are: {', '.join(COMMANDS)}."
    return f"unknown command '{name}'; {hint}"


def _explain(error: BaseException) -> str | None:
    """Return one line for an error that the person can put right, None for one that is a fault of the program."""
    from vargpt_lightning.utils.errors import UserError

    if isinstance(error, UserError):
        text = str(error)  # a loader's worker sends its whole traceback as the text; the last line is the message
        return text.rpartition("UserError: ")[2] if text.startswith("Caught UserError") else text
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:  # a full disk comes wrapped by the library that was writing
        seen.add(id(cause))
        if message := _explain_system(cause):
            return message
        cause = cause.__cause__ or cause.__context__
    return None


def _explain_system(error: BaseException) -> str | None:
    """Name what the operating system refused: a full disk, a file that may not be written."""
    import errno

    code = error.errno if isinstance(error, OSError) else None
    where = f" while writing {error.filename}" if isinstance(error, OSError) and error.filename else ""
    if code in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return f"the disk is full{where}; free some space and run the same command again, what was finished is kept"
    if code == errno.ENAMETOOLONG and isinstance(error, OSError):
        return f"{str(error.filename)[:80]}...: the name is too long; expected at most 255 bytes between two slashes"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a name of a file or folder holds a NUL character; expected one without"
    if code in (errno.ENOENT, errno.ENOTDIR) and isinstance(error, OSError) and _raised_in(error) in FOLDER_MAKERS:
        return f"{error.filename}: no folder can be made there ({error.strerror}); expected another path"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS) and where:
        return f"no permission{where.replace('writing', 'opening')}: {error}"
    return None


def _raised_in(error: BaseException) -> str:
    """The name of the function that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_name if trace is not None else ""


def _fail(message: str) -> int:
    """Write the one line that says what was wrong; return exit code 2."""
    sys.stderr.write(f"vargpt: error: {' '.join(message.split())}\n")
    return 2


def _write(text: str, code: int = 0) -> int:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        return _quiet_pipe()
    return code


def _quiet_pipe() -> int:
    """Point stdout at nothing, so that the interpreter's last flush does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


if __name__ == "__main__":
    sys.exit(main())
