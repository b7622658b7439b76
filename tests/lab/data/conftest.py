"""Prepared tokens, small: ``prepared(texts, ...)`` writes and prepares JSONL, in shards of 65,536 tokens."""

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lab.data.bpe import train_bpe
from lab.data.mapped import GRAIN
from lab.data.prepare import prepare
from lab.data.shards import Tokens, open_tokens
from lab.data.sources import How
from lab.data.tokens import Bytes, JsonTokenizer, Tokenizer

TEXT = "der die das und nicht ein Haus Straße naïve \N{GRINNING FACE} <|im_end|> <|endoftext|> <|im_start|>\n"


@pytest.fixture(scope="session")
def bpe() -> JsonTokenizer:
    return JsonTokenizer("trained", train_bpe([TEXT] * 3, 300).encode())


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Tokens]:
    numbers = itertools.count()

    def make(
        documents: Iterable[object],
        tokenizer: Tokenizer | None = None,
        chat: bool = False,
        valid: float = 0.0,
        shard: int = GRAIN,
    ) -> Tokens:
        number = next(numbers)
        source, out = tmp_path / f"{number}.jsonl", tmp_path / f"prepared-{number}"
        field = "messages" if chat else "text"
        source.write_text("".join(json.dumps({field: one}) + "\n" for one in documents), encoding="utf-8")
        how = How(field=field, chat=chat)
        prepare([str(source)], out, tokenizer or Bytes(), how, valid=valid, shard=shard)
        return open_tokens(str(out))

    return make
