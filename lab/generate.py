"""``lab generate``: what comes after a prompt, by a model of ``lab train``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.genesis.commands import (
    PenaltyOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
)
from lab.terminal import BlocksOption, CommandError, JsonOption, emit, known_blocks, note, say, stream

if TYPE_CHECKING:
    from blocks.schedule import Schedule
    from lab.data.tokens import Tokenizer
    from lab.generation.language import Language
    from lab.generation.sampling import Sampling
    from lab.generation.steps import Past, Step

__all__ = ["ModelArgument", "generate", "ids_of", "model_file"]


ModelArgument = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="A file of weights of the lab, or the run folder that holds it."),
]


def generate(
    model: ModelArgument,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="Text to go on from; several are one batch.")
    ] = None,
    steps: StepsOption = 128,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = None,
    top_p: TopPOption = 1.0,
    repetition_penalty: PenaltyOption = 1.0,
    seed: SeedOption = 0,
    stats: Annotated[
        bool, typer.Option("--stats", help="Say on stderr what state is held, and how it grows.")
    ] = False,
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Go on from prompts, token by token, on a state that linear layers never let grow.

    Without --prompt a new document is begun. A sequence ends with its document, or after --steps tokens.
    Prompt number n, from 0, has its draws from the seed plus n, and is continued as it would be alone.

    Examples:
      lab generate models/winner --prompt "Once upon a time"
      lab generate models/winner/model.safetensors --steps 1000 --temperature 0.8 --stats
      lab generate models/winner --prompt "def f(" --prompt "import " --temperature 0 --json
    """
    from lab.generation.sampling import Sampling

    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty
    )
    path = model_file(model)
    known = known_blocks(blocks)

    from lab.generation.language import Language
    from lab.model.spec import read_model, schedule_of, tokenizer_of

    made, spec = read_model(path, blocks=known)
    tokenizer = tokenizer_of(spec)
    prompts = [_prompt(tokenizer, text) for text in prompt or [""]]
    asked = Asked(Language(made.eval()), tokenizer, schedule_of(spec, known), sampling, steps, seed)
    sequences = asked.tell(prompts, aloud=not json)
    if json:
        settings = {"seed": seed, "steps": steps, **asdict(sampling)}
        emit({**settings, "sequences": sequences, "state": asked.stats()})
    if stats:
        note(asked.page())


def model_file(model: Path) -> Path:
    """The file of weights that ``model`` is or holds. Raises CommandError."""
    path = model / "model.safetensors" if model.is_dir() else model
    if not path.is_file():
        raise CommandError(
            f"{path}: there is no such file; give a model.safetensors, its run folder or an export"
        )
    return path


def _prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a prompt, behind the mark that ends the document before it."""
    found = [
        *([] if tokenizer.separator is None else [tokenizer.separator]),
        *ids_of(tokenizer, text, "--prompt"),
    ]
    if not found:
        raise CommandError(f"--prompt {text!r} has no token, and {tokenizer.name} no mark to begin with")
    return found


def ids_of(tokenizer: Tokenizer, text: str, what: str) -> list[int]:
    """The ids of ``text``. Raises CommandError where it is none; ``what`` is its name there."""
    for letter in text:
        if "\ud800" <= letter <= "\udfff":  # what Python makes of a byte that it cannot decode
            raise CommandError(f"{what} holds {letter!a}, which is no text; UTF-8 is wanted")
    return tokenizer.encode(text)


class Asked:
    """One command line: the model, and how to go on from prompts; keeps what it held, for the statistics."""

    def __init__(
        self,
        reader: Language,
        tokenizer: Tokenizer,
        schedule: Schedule,
        sampling: Sampling,
        steps: int,
        seed: int,
    ) -> None:
        self.reader, self.tokenizer, self.schedule = reader, tokenizer, schedule
        self.sampling, self.steps, self.seed = sampling, steps, seed
        self.first: tuple[int, Past] | None = None
        self.last: tuple[int, Past] | None = None

    def run(self, prompts: list[list[int]]) -> Iterator[Step]:
        import torch

        from lab.generation.steps import generate_ragged

        end = self.tokenizer.separator
        made = [0] * len(prompts)
        rngs = [torch.Generator().manual_seed(self.seed + i) for i in range(len(prompts))]
        for step in generate_ragged(
            self.reader,
            prompts,
            steps=self.steps,
            sampling=self.sampling,
            stop=() if end is None else (end,),
            rngs=rngs,
        ):
            row = step.rows[0]  # one for all: they are equally long
            self.last = (len(prompts[row]) + made[row], step.past)
            self.first = self.first or self.last
            for row in step.rows:
                made[row] += 1
            yield step

    def tell(self, prompts: list[list[int]], aloud: bool) -> list[dict[str, Any]]:
        """Go on from all; a lone sequence is printed as it comes, several when all are done."""
        from lab.generation.streaming import Decoder, Spelled

        decoders = [Decoder(Spelled(self.tokenizer)) for _ in prompts]
        ids: list[list[int]] = [[] for _ in prompts]
        texts = [""] * len(prompts)
        for step in self.run(prompts):
            for row, token in zip(step.rows, step.tokens, strict=True):
                ids[row].append(token)
                piece = "" if token == self.tokenizer.separator else decoders[row].add(token)
                texts[row] += piece
                if aloud and len(prompts) == 1:
                    stream(piece)
        for row, decoder in enumerate(decoders):
            rest = decoder.rest()
            texts[row] += rest
            if aloud:
                say(rest if len(prompts) == 1 else f"--- {row + 1} of {len(prompts)}\n{texts[row]}")
        end = self.tokenizer.separator
        return [
            {"prompt": prompt, "ids": made, "ended": made[-1] == end, "text": text}
            for prompt, made, text in zip(prompts, ids, texts, strict=True)
        ]

    def stats(self) -> list[dict[str, Any]]:
        """Bytes that one sequence holds by kind of mixer, when the first and the last token were drawn."""
        from lab.generation.language import bytes_by_role

        if self.first is None or self.last is None:
            return []
        (begin, first), (end, last) = self.first, self.last
        before, after = (bytes_by_role(self.schedule, past.state) for past in (first, last))
        tokens = end - begin
        return [
            {
                "role": role,
                "bytes": [before[role], after[role]],
                "tokens": [begin, end],
                "bytes_per_token": (after[role] - before[role]) / tokens if tokens else None,
            }
            for role in before
        ]

    def page(self) -> str:
        """``stats`` as a table."""
        from lab.terminal import table

        rows = [
            (
                one["role"],
                f"{one['bytes'][0]:,}",
                f"{one['bytes'][1]:,}",
                "-" if one["bytes_per_token"] is None else f"{one['bytes_per_token']:,.0f}",
            )
            for one in self.stats()
        ]
        begin, end = (found[0] if found else 0 for found in (self.first, self.last))
        header = ("state, bytes a sequence", f"after {begin:,} tokens", f"after {end:,}", "each token more")
        return table(header, rows)
