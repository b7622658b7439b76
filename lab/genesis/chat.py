"""``lab genesis chat``: turns in ChatML, on a past that grows by what is new of each turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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
from lab.terminal import say, stream

if TYPE_CHECKING:
    from blocks.genesis_model import GenesisModel
    from lab.generation.sampling import Sampling
    from lab.generation.steps import Past
    from lab.genesis.tokenizer import Text

__all__ = ["Talk", "chat"]


def chat(
    weights: WeightsArgument,
    tokenizer: TokenizerOption = None,
    system: Annotated[
        str | None, typer.Option("--system", help="What the model is told before all turns.")
    ] = None,
    steps: StepsOption = 150,
    temperature: TemperatureOption = 0.7,
    top_k: TopKOption = 50,
    top_p: TopPOption = 0.9,
    repetition_penalty: PenaltyOption = 1.05,
    seed: SeedOption = 0,
    mode: ModeOption = "shipped-cache",
    dtype: DtypeOption = "float32",
    config: ConfigOption = None,
) -> None:
    """Talk with the model: each line is a turn, and the model answers until it ends its own. Ctrl-D ends.

    The defaults of the draws are those of the package's own chat. --steps is the longest answer in tokens.

    Examples:
      lab genesis chat genesis.safetensors --tokenizer tokenizer.json
      lab genesis chat genesis.safetensors --tokenizer tokenizer.json --system "You answer briefly."
      lab genesis chat genesis.safetensors --tokenizer tokenizer.json --temperature 0 < questions.txt
    """
    which, kind, named = mode_named(mode), dtype_named(dtype), config_named(config)

    from lab.generation.sampling import Sampling
    from lab.genesis.generate import check_mode
    from lab.genesis.ids import note_length
    from lab.genesis.tokenizer import Text, open_tokenizer
    from lab.genesis.weights import build, read

    check_mode(which)
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=repetition_penalty
    )
    opened = open_tokenizer(tokenizer, "chat")
    held = read(weights, named)
    text = Text(opened, held.released.vocab_size, f"--tokenizer {tokenizer}")
    talk = Talk(build(held, which, kind), text, sampling, steps, seed, system)
    noted = False
    for line in _lines():
        for piece in talk.answer(line):
            stream(piece)
        say()
        if not noted and talk.length > held.released.block_size:
            note_length(talk.length, held.released.block_size)
            noted = True


def _lines() -> Iterator[str]:
    """The lines of stdin that say something, asked for where someone sits there."""
    asking = sys.stdin.isatty()
    while True:
        if asking:
            stream("> ", aside=True)
        line = sys.stdin.readline()
        if not line:
            break
        if line.strip():
            yield line.rstrip("\r\n")
    if asking:
        stream("\n", aside=True)


class Talk:
    """A conversation: what the model has read of it, and what it has yet to read.

    A turn is ``<|im_start|>role``, a line end, the words, ``<|im_end|>`` and a line end. Marks in someone's
    words are letters like any others. Raises CommandError where the tokenizer has no marks.
    """

    def __init__(
        self, model: GenesisModel, text: Text, sampling: Sampling, steps: int, seed: int, system: str | None
    ) -> None:
        import torch

        self.model, self.text, self.sampling, self.steps = model, text, sampling, steps
        self.start, self.end = text.marks()
        self.line_end = text.encode("\n", "a line end")
        self.rng = torch.Generator().manual_seed(seed)
        self.past: Past | None = None
        self.unread = [] if system is None else self._turn("system", system, "--system")
        self.length = 0
        """Tokens read so far."""

    def _turn(self, role: str, words: str, what: str) -> list[int]:
        inner = self.text.encode(f"{role}\n{words}", what, plain=True)
        return [self.start, *inner, self.end, *self.line_end]

    def answer(self, message: str) -> Iterator[str]:
        """What the model says to ``message``, as it says it."""
        import torch

        from lab.generation.streaming import Decoder
        from lab.genesis.generate import generate

        ahead = [self.start, *self.text.encode("assistant\n", "a role", plain=True)]
        prompt = [*self.unread, *self._turn("user", message, "the line"), *ahead]
        decoder, token = Decoder(self.text), self.end
        self.length += len(prompt) - 1
        for step in generate(
            self.model,
            torch.tensor([prompt]),
            steps=self.steps,
            sampling=self.sampling,
            stop=(self.end,),
            rng=self.rng,
            past=self.past,
        ):
            self.past, (token,) = step.past, step.tokens
            self.length += 1
            if token != self.end:
                yield decoder.add(token)
        yield decoder.rest()
        # The last token has been said and not read; an answer cut short is ended here.
        self.unread = [*([] if token == self.end else [token]), self.end, *self.line_end]
