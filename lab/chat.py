"""``lab chat``: a conversation with a model of ``lab train``, on a state carried from turn to turn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.generate import ModelArgument, ids_of, model_file
from lab.genesis.commands import (
    PenaltyOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
)
from lab.terminal import BlocksOption, CommandError, known_blocks, lines_said, note, say, stream

if TYPE_CHECKING:
    from blocks.schedule import Schedule
    from lab.data.tokens import Tokenizer
    from lab.generation.talk import Talk, Wording
    from lab.model.form import Spec

__all__ = ["chat", "learnt_talks"]

FORMS = ("chatml", "plain")


def chat(
    model: ModelArgument,
    form: Annotated[
        str | None,
        typer.Option(
            metavar="chatml|plain",
            help="Turns with roles, or text that goes on; default: as the model was trained.",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="What the model is told before all turns, in ChatML.")
    ] = None,
    steps: StepsOption = 150,
    temperature: TemperatureOption = 0.7,
    top_k: TopKOption = None,
    top_p: TopPOption = 0.9,
    repetition_penalty: PenaltyOption = 1.0,
    seed: SeedOption = 0,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say on stderr after each turn what state is held.")
    ] = False,
    blocks: BlocksOption = None,
) -> None:
    """Talk with a model: each line is a turn, and the model answers until it ends its own. Ctrl-D ends.

    Nothing is read twice: a turn goes on from the state that the last one left, which linear layers never let
    grow. A model that learnt from conversations is asked in ChatML; any other goes on from what is written.

    Examples:
      lab chat models/winner
      lab chat models/winner --system "You answer briefly." --stats
      lab chat models/smoke --form plain --temperature 0 < lines.txt
    """
    from lab.generation.sampling import Sampling

    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty
    )
    if form is not None and form not in FORMS:
        raise CommandError(f"--form is {form!r}; known are {' and '.join(FORMS)}")
    path, known = model_file(model), known_blocks(blocks)

    from lab.generation.language import Language
    from lab.generation.streaming import Spelled
    from lab.generation.talk import Talk
    from lab.model.spec import read_model, schedule_of, tokenizer_of

    made, spec = read_model(path, blocks=known)
    tokenizer = tokenizer_of(spec)
    wording = _wording(tokenizer, form or _form_of(spec), system)
    talk = Talk(Language(made.eval()), Spelled(tokenizer), wording, sampling, steps, seed)
    for line in lines_said():
        for piece in talk.answer(line):
            stream(piece)
        say()
        if stats:
            note(_held(talk, schedule_of(spec, known)))


def learnt_talks(spec: Spec) -> bool:
    """Whether the model learnt from conversations. Raises DataError where its data are gone."""
    from lab.data.corpus import NAME
    from lab.data.manifest import read_manifest

    chats = [read_manifest(Path(one.data)).chat for one in spec.data.train if one.data != NAME]
    return any(chats)


def _form_of(spec: Spec) -> str:
    """ChatML for a model that learnt from conversations. Raises CommandError where its data are gone."""
    from lab.data.tokens import DataError

    try:
        return "chatml" if learnt_talks(spec) else "plain"
    except DataError as exc:
        raise CommandError(
            f"whether {spec.name} learnt from conversations stands with its data: {exc}; or give --form "
            f"{' or --form '.join(FORMS)}"
        ) from None


def _wording(tokenizer: Tokenizer, form: str, system: str | None) -> Wording:
    from lab.data.tokens import END, START
    from lab.generation.talk import ChatML, Plain

    def encode(text: str, what: str) -> list[int]:
        return ids_of(tokenizer, text, what)

    if form == "plain":
        if system is not None:
            raise CommandError("--system belongs to ChatML, and this model goes on from text; leave it out")
        return Plain(encode, tokenizer.separator)
    start, end = tokenizer.id_of(START), tokenizer.id_of(END)
    if start is None or end is None:
        raise CommandError(f"the tokenizer {tokenizer.name} has no {START} and {END}; give --form plain")
    before = [] if tokenizer.separator is None else [tokenizer.separator]
    return ChatML(encode, (start, end), apart=True, before=before, system=system)


def _held(talk: Talk, schedule: Schedule) -> str:
    """What the state weighs, by what kind of mixer holds it."""
    from lab.generation.language import bytes_by_role

    held = {} if talk.past is None else bytes_by_role(schedule, talk.past.state)
    parts = ", ".join(f"{role} {size:,} bytes" for role, size in held.items())
    return f"state after {talk.length:,} tokens: {parts}"
