"""``lab genesis chat``: turns in ChatML, on a past that grows by what is new of each turn."""

from __future__ import annotations

from functools import partial
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
from lab.terminal import lines_said, say, stream

if TYPE_CHECKING:
    from blocks.genesis_model import GenesisModel
    from lab.generation.sampling import Sampling
    from lab.generation.talk import Talk
    from lab.genesis.tokenizer import Text

__all__ = ["chat", "talk_of"]


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
    talk = talk_of(build(held, which, kind), text, sampling, steps, seed, system)
    noted = False
    for line in lines_said():
        for piece in talk.answer(line):
            stream(piece)
        say()
        if not noted and talk.length > held.released.block_size:
            note_length(talk.length, held.released.block_size)
            noted = True


def talk_of(
    model: GenesisModel, text: Text, sampling: Sampling, steps: int, seed: int, system: str | None
) -> Talk:
    """A conversation in ChatML. Raises CommandError where the tokenizer has no marks."""
    from lab.generation.talk import ChatML, Talk
    from lab.genesis.generate import reader_of

    wording = ChatML(partial(text.encode, plain=True), text.marks(), apart=False, system=system)
    return Talk(reader_of(model), text, wording, sampling, steps, seed)
