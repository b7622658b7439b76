"""The command line: the table of commands, and what happens when one of them fails.

Nothing heavier than typer is imported here: torch, optuna, polars and plotly wait inside the commands that
need them, so that ``lab --help`` answers at once.
"""

from __future__ import annotations

import errno
import inspect
import sys
from collections.abc import Callable
from typing import NoReturn

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from lab.ablate.command import ablate
from lab.bench.command import bench
from lab.calibrate import calibrate
from lab.catalogue import blocks, sample, tasks
from lab.chat import chat as chat_with
from lab.compare import compare
from lab.dashboard import dashboard
from lab.data.commands import prepare, show, tokenizer
from lab.describe import describe
from lab.doctor import doctor
from lab.evaluate.command import evaluate
from lab.export.command import export
from lab.generate import generate as generate_text
from lab.genesis.audit import audit
from lab.genesis.chat import chat
from lab.genesis.generate_command import generate
from lab.genesis.info import info
from lab.genesis.logits import logits
from lab.genesis.pace_command import pace
from lab.genesis.race_command import race
from lab.genesis.recipe import recipe
from lab.genesis.verify_command import verify
from lab.mup.command import mup
from lab.plan import plan, validate
from lab.report import report
from lab.scale import scale
from lab.score import score
from lab.status import status
from lab.sweep import pack, sweep
from lab.terminal import note
from lab.train.command import train
from lab.transfer.commands import Shows, pack_rows, run_study, show_study
from lab.worker import worker

__all__ = ["app", "main", "run"]

OURS = ("blocks", "synthetics", "sweeps", "analysis", "lab")
"""Our packages: a ValueError defined in one of them is bad input and says so; any other is a bug."""

FILE_PROBLEMS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP}

app = typer.Typer(
    name="lab",
    help="Cheap, honest evidence for the design of hybrid language models.",
    epilog='\b\nExamples:\n  lab sweep smoke\n  lab sweep --help\n  lab describe "3*(gdn, swiglu) + fox"',
    # Schedules are full of [ and ]: rich would read them as markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
genesis = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
transfer = typer.Typer(cls=Shows, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
data = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)


def _add(command: Callable[..., None], to: typer.Typer, name: str | None = None) -> None:
    """Register ``command``, by its own name unless one is given; its Examples end its help, line for line."""
    text, _, examples = (inspect.getdoc(command) or "").partition("\n\nExamples:\n")
    to.command(name, help=text, epilog=f"\b\nExamples:\n{examples}")(command)


for _command in (
    sweep,
    worker,
    status,
    plan,
    validate,
    report,
    compare,
    dashboard,
    pack,
    scale,
    calibrate,
    ablate,
    score,
    describe,
    mup,
    blocks,
    tasks,
    sample,
    doctor,
    bench,
    train,
    export,
):
    _add(_command, app)
_add(generate_text, app)
_add(chat_with, app)

_add(evaluate, app, "eval")  # a word that Python has taken

for _command in (info, logits, generate, chat, verify, audit, race, pace, recipe):
    _add(_command, genesis)

for _command in (prepare, tokenizer, show):
    _add(_command, data)

_add(run_study, transfer, "run")
_add(show_study, transfer, "show")
_add(pack_rows, transfer, "pack")

app.add_typer(
    transfer,
    name="transfer",
    help="Does the verdict transfer? Synthetic scores held against language models of the same schedules.",
    epilog="\b\nExamples:\n  lab transfer runs/transfer\n  lab transfer run transfer --time 110m\n"
    "  lab transfer run --help",
)
app.add_typer(
    data,
    name="data",
    help="What full-size models learn from: text as token shards, and a tokenizer for it.",
    epilog="\b\nExamples:\n  lab data prepare corpus --out data/corpus\n  lab data prepare --help",
)
app.add_typer(
    genesis,
    name="genesis",
    help="Genesis-152M: its released weights, in the five functions that they are run as or described by.",
    epilog="\b\nExamples:\n  lab genesis info\n  lab genesis generate --help",
)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; errors are told on stderr.

    0 done; 1 a check that failed, a bug (with its traceback), or a reader of stdout that has left (typer ends
    quietly there); 2 bad input (one sentence); 130 Ctrl-C.
    """
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(given or ["--help"], prog_name="lab", standalone_mode=False)
    except TyperException as exc:
        return _usage(exc)
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError) as exc:
        sentence = _sentence(exc)
        if sentence is None:
            raise
        note(f"error: {sentence}")
        return 2
    except (MemoryError, RuntimeError) as exc:
        # PyTorch has no class for it, nor have the kernels.
        said = "allocate memory" in str(exc) or "no memory for" in str(exc)
        if not isinstance(exc, MemoryError) and not said:
            raise
        note(
            "error: this takes more memory than there is; give fewer or shorter sequences, or a smaller model"
        )
        return 2
    return code if isinstance(code, int) else 0


def _usage(exc: TyperException) -> int:
    """A command line that typer refuses."""
    context = getattr(exc, "ctx", None)
    where = context.command_path if context else "lab"
    message = exc.format_message().rstrip(".").replace("Value error, ", "")
    if isinstance(exc.__cause__, ValidationError):
        first = exc.__cause__.errors()[0]
        told = first["msg"][:1].lower() + first["msg"][1:]
        message = message.replace(first["msg"], f"{first['input']!r} was given; {told}")
    note(f"error: {message[:1].lower()}{message[1:]}; see {where} --help")
    return exc.exit_code


def _sentence(exc: ValueError | OSError) -> str | None:
    """What to tell a user of ``exc``, or None if it is a bug of ours."""
    if type(exc).__module__.partition(".")[0] in OURS:
        return str(exc)
    if isinstance(exc, UnicodeDecodeError):
        return f"a text file in UTF-8 is wanted, but the input is not ({exc.reason} at byte {exc.start})"
    if isinstance(exc, FileNotFoundError):
        return f"there is no file {_name(exc)}"
    if isinstance(exc, IsADirectoryError):
        return f"{_name(exc)} is a directory; a file is wanted"
    if isinstance(exc, PermissionError):
        return f"{_name(exc)} may not be read or written by you ({exc.strerror})"
    if isinstance(exc, OSError) and exc.errno in FILE_PROBLEMS:
        return f"{_name(exc)}: {exc.strerror}"
    return None


def _name(exc: OSError) -> str:
    return str(exc.filename) if exc.filename is not None else "a file"


def main() -> NoReturn:
    """The console script ``lab``."""
    sys.exit(run())
