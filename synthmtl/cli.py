"""The command line: parse, call, and turn bad input into one line and exit code 2."""

import argparse
import errno
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentError, ArgumentParser

from synthmtl import __version__, commands
from synthmtl.commands.options import new_parser
from synthmtl.commands.talk import add_quiet_option, heed_quiet
from synthmtl.errors import InputError


def build_parser(argv: Sequence[str]) -> ArgumentParser:
    """The parser of all commands. Only the one that ``argv`` names gets its options, which saves seconds of imports."""
    parser = new_parser(
        prog="synthmtl",
        description="Balanced faces and selective feature sharing for facial expression recognition.",
    )
    parser.add_argument("--version", action="version", version=f"synthmtl {__version__}")
    subcommands = parser.add_subcommands(dest="command", required=True)
    for name, command in commands.COMMANDS.items():
        sub = new_parser(description=command.about)
        if argv[:1] == [name]:
            command.configure(sub, argv)
            add_quiet_option(sub)
        subcommands.add_subcommand(name, sub, help=command.about)
    return parser


def say_errors_in_one_line(call: Callable[[], int | None]) -> int:
    """Run ``call`` with the log on stderr, and turn bad usage and bad input into one line there.

    Returns:
        The exit code: what ``call`` returns, None = 0, 1 for a training that diverged, or 2 for bad usage, bad input, a
        full disk or a file that may not be read or written. Any other error escapes as it is (exit code 1).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be no text of any encoding, or not of this one
            stream.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("synthmtl")
    logger.handlers[:] = [handler]
    first = os.environ.get("RANK", "0") == "0"  # of several processes, only one tells what all of them do
    logger.setLevel(logging.INFO if first else logging.ERROR)
    logging.getLogger("synthmtl.progress").setLevel(logging.NOTSET)
    try:
        return call() or 0
    except (InputError, ArgumentError, argparse.ArgumentError) as error:
        print(f"synthmtl: {_one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as in `synthmtl predict ... | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.errno not in _CURES:
            raise
        print(f"synthmtl: {error.filename or 'the disk'}: {error.strerror}: {_CURES[error.errno]}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        from synthmtl.training import DivergedError  # takes seconds to import, and only what trained can have raised it

        if not isinstance(error, DivergedError):
            raise
        print(f"synthmtl: {_one_line(error)}: {_DIVERGED}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("synthmtl: interrupted; --resume goes on from what is there", file=sys.stderr)
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code of :func:`say_errors_in_one_line`."""
    argv = list(sys.argv[1:] if argv is None else argv)

    def run() -> int | None:
        options = build_parser(argv).parse_args(argv)
        heed_quiet(options[options.command])
        return commands.COMMANDS[options.command].call(options[options.command])

    return say_errors_in_one_line(run)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    for pattern, plain in _PLAINER:
        text = re.sub(pattern, plain, text)
    return text or type(error).__name__


_ROOM = "free some space and call again; --resume goes on from what is there"
_RIGHTS = "change its permissions, or give another path"
_CURES = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOSPC: _ROOM, errno.EDQUOT: _ROOM, errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS, errno.EROFS: _RIGHTS,
}  # fmt: skip
"""What a user can do about an error of the system."""

_DIVERGED = (
    "start anew with a lower learning_rate, or with a clip_norm; --resume would diverge again at this step, since a "
    "run is a pure function of the step"
)
"""What a user can do about a training that diverged."""

_PLAINER = (
    (r'^expected "command" to be one of .*', f"name a command ({', '.join(commands.COMMANDS)}), or --help"),
    (r"^Unexpected config: .*", "the configuration file has no options: write lines of NAME: VALUE"),
    (r"Expected a typing\.Literal\[(.*?)\]\. Got value: ", r"expected one of \1, got "),
    (r"Parser key \"([\w.]+)\": ", r"--\1: "),
    (r"[Ee]xpected an? <class '(\w+)'>\. Got value: ", r"expected \1, got "),
    (r"Subcommand '\w+' does not accept option '([\w.]+)'", r"the configuration file has the unknown option \1"),
    (r"(?<=required: ).*", lambda match: re.sub(r"\b\w+\.(\w+)", r"\1", match[0])),
    (r'in "<unicode string>", ', "in the configuration file, "),
)
"""Wordings of the parser of options, and what a user can make more of."""


if __name__ == "__main__":
    sys.exit(main())
