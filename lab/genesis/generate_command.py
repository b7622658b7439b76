"""``lab genesis generate``: what comes after a prompt, written as it is made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.genesis.commands import (
    ConfigOption,
    DtypeOption,
    ModeOption,
    PenaltyOption,
    SeedOption,
    StepsOption,
    TemperatureOption,
    TokenizerOption,
    TopKOption,
    TopPOption,
    WeightsArgument,
    config_named,
    dtype_named,
    mode_named,
)
from lab.terminal import CommandError, JsonOption, emit, say, stream

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from blocks.genesis_model import GenesisModel
    from lab.generation.sampling import Sampling
    from lab.generation.steps import Step
    from lab.genesis.tokenizer import Text

__all__ = ["generate"]

PromptOption = Annotated[
    list[str] | None,
    typer.Option("--prompt", help="Text to go on from; several are gone on from one after another."),
]
StopOption = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="ID|TOKEN",
        help="A token that ends a sequence, by id or, with a tokenizer, by text.",
    ),
]


def generate(
    weights: WeightsArgument,
    prompt: PromptOption = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", metavar="FILE.npy", help="Prompts as token ids [B, T].")
    ] = None,
    tokenizer: TokenizerOption = None,
    steps: StepsOption = 64,
    temperature: TemperatureOption = 1.0,
    top_k: TopKOption = None,
    top_p: TopPOption = 1.0,
    repetition_penalty: PenaltyOption = 1.0,
    stop: StopOption = None,
    seed: SeedOption = 0,
    mode: ModeOption = "shipped-cache",
    dtype: DtypeOption = "float32",
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Go on from a prompt, token by token, in a mode that can go on from a state.

    Text is printed where there is a tokenizer, ids where there is none. Every --prompt has its own draws from
    --seed; the sequences of --ids are one batch.

    Examples:
      lab genesis generate genesis.safetensors --tokenizer tokenizer.json --prompt "Once upon a time"
      lab genesis generate genesis.safetensors --ids ids.npy --steps 20 --temperature 0
      lab genesis generate genesis.safetensors --ids ids.npy --mode documented --top-p 0.9 --seed 7 --json
    """
    which, kind, named = mode_named(mode), dtype_named(dtype), config_named(config)

    from lab.generation.sampling import Sampling
    from lab.genesis.generate import check_mode
    from lab.genesis.ids import note_length, read_ids
    from lab.genesis.tokenizer import Text, open_tokenizer
    from lab.genesis.weights import build, read

    check_mode(which)
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty
    )
    if bool(prompt) == (ids is not None):
        given = "both are given" if prompt else "neither is given"
        raise CommandError(f"one of --prompt TEXT and --ids FILE.npy is wanted; {given}")
    opened = open_tokenizer(tokenizer, "--prompt") if prompt or tokenizer else None
    array = None if ids is None else read_ids(ids)
    held = read(weights, named)
    vocab = held.released.vocab_size
    text = None if opened is None else Text(opened, vocab, f"--tokenizer {tokenizer}")
    stops = [_stop(one, text, vocab) for one in stop or ()]
    batches = _batches(prompt or [], text, array, vocab)
    note_length(max(batch.shape[1] for batch in batches) + steps, held.released.block_size)
    asked = Asked(build(held, which, kind), text, sampling, steps, stops, seed)
    if not json:
        _say_all(asked, batches)
        return
    settings = {"mode": which, "dtype": dtype, "seed": seed, "steps": steps, **asdict(sampling)}
    emit({**settings, "stop": stops, "sequences": [one for batch in batches for one in asked.whole(batch)]})


def _batches(prompts: list[str], text: Text | None, array: np.ndarray | None, vocab: int) -> list[Tensor]:
    """The ids [B, T] as one batch, and every prompt as one of its own: they differ in length."""
    import torch

    from lab.genesis.ids import check_ids

    batches = []
    if array is not None:
        check_ids(array, vocab, "--ids")
        batches.append(torch.from_numpy(array.astype("int64")))
    for prompt in prompts:
        found = text.encode(prompt, "--prompt") if text else []
        if not found:
            raise CommandError(f"--prompt {prompt!r} has no token; give some text")
        batches.append(torch.tensor([found]))
    return batches


def _stop(given: str, text: Text | None, vocab: int) -> int:
    """The id that ``--stop`` means: a whole number is an id, anything else the text of a token."""
    from lab.genesis.ids import allowed

    number = int(given) if given.isdecimal() and given.isascii() else None
    token = number if number is not None or text is None else text.id_of(given)
    if token is None:
        told = "give its id, or --tokenizer FILE.json" if text is None else f"{text.where} has no such token"
        raise CommandError(f"--stop is {given!r}; {told}")
    if token >= vocab:
        raise CommandError(f"--stop {given} is id {token}, outside the vocabulary; {allowed(vocab)}")
    return token


class Asked:
    """One command line: the model, and how to go on from whatever prompt."""

    def __init__(
        self,
        model: GenesisModel,
        text: Text | None,
        sampling: Sampling,
        steps: int,
        stops: list[int],
        seed: int,
    ) -> None:
        self.model, self.text, self.sampling = model, text, sampling
        self.steps, self.stops, self.seed = steps, stops, seed

    def run(self, prompt_BT: Tensor) -> Iterator[Step]:
        import torch

        from lab.genesis.generate import generate as library

        rng = torch.Generator().manual_seed(self.seed)
        return library(
            self.model, prompt_BT, steps=self.steps, sampling=self.sampling, stop=self.stops, rng=rng
        )

    def pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        """What is printed of a sequence, piece by piece: its text without the stop, or its ids."""
        from lab.generation.streaming import Decoder

        if self.text is None:
            for at, token in enumerate(tokens):
                yield f" {token}" if at else f"{token}"
            return
        decoder = Decoder(self.text)
        yield from (decoder.add(token) for token in tokens if token not in self.stops)
        yield decoder.rest()

    def whole(self, prompt_BT: Tensor) -> list[dict[str, Any]]:
        """Every sequence of a batch, done."""
        made: list[list[int]] = [[] for _ in prompt_BT]
        for step in self.run(prompt_BT):
            for row, token in zip(step.rows, step.tokens, strict=True):
                made[row].append(token)
        return [
            {
                "prompt": prompt,
                "ids": ids,
                "stopped": ids[-1] in self.stops,
                "text": "".join(self.pieces(iter(ids))) if self.text else None,
            }
            for prompt, ids in zip(prompt_BT.tolist(), made, strict=True)
        ]


def _say_all(asked: Asked, batches: list[Tensor]) -> None:
    """One sequence a batch is printed as it comes, several when all are done, each after its number."""
    total, at = sum(map(len, batches)), 0
    for batch in batches:
        if len(batch) == 1:
            ready = [asked.pieces(step.tokens[0] for step in asked.run(batch))]
        else:
            ready = [asked.pieces(iter(one["ids"])) for one in asked.whole(batch)]
        for pieces in ready:
            at += 1
            if total > 1:
                say(f"--- {at} of {total}")
            for piece in pieces:
                stream(piece)
            say()
