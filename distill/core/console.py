"""Ending a command: one message for what the user can change, exit codes, a clean stop on Ctrl-C."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from rich.console import Console

from distill.core.errors import DistillError

__all__ = ["run_command"]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def run_command(command: Callable[[], object]) -> int:
    """Run a command and turn what it raises into a message and an exit code.

    Returns:
        0 all is well; 1 our bug, with the traceback; 2 the user's input; 3 a gate failed; 130 stopped by Ctrl-C.
    """
    try:
        command()
    except DistillError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("stopped; finished work is kept, the same command goes on", 130)
    except OSError as error:
        where = error.filename or "the output folder"
        if error.errno in _NO_ROOM:
            return _say(
                f"no room left to write {where} ({error.strerror}): free some space, the same command goes on", 2
            )
        if error.errno in _NOT_ALLOWED:
            return _say(f"not allowed to write {where} ({error.strerror}); finished work is kept", 2)
        return _bug()
    except Exception:
        return _bug()
    return 0


def _say(message: str, code: int) -> int:
    console = Console(stderr=True)
    console.print("[bold red]error:[/bold red] ", end="")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    return code


def _bug() -> int:
    traceback.print_exc()
    return _say("this is a bug of mobile-distill, not yours; please report it with the lines above", 1)


def leave(code: int) -> None:
    """End the process now: native runtimes need seconds to unload, and can crash while doing so."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def with_defaults(arguments: Sequence[str], option: str, choices: Sequence[str]) -> list[str]:
    """Give `option` its first choice where it stands without a value: `--quantize` means `--quantize int8`."""
    given = list(arguments)
    for place, argument in enumerate(given):
        if argument == option and given[place + 1 : place + 2] not in [[choice] for choice in choices]:
            given[place] = f"{option}={choices[0]}"
    return given
