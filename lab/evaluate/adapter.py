"""A model of ours as lm-eval-harness wants one; importing this needs the extra ``eval``."""

from __future__ import annotations

from typing import Any

from lm_eval.api.model import TemplateLM

from blocks.model import LanguageModel
from lab.evaluate.bits import Windows, score
from lab.evaluate.harness import HarnessError, continuations, go_on
from lab.evaluate.text import Tokenizer, encode, known_separator

__all__ = ["Adapter"]


class Adapter(TemplateLM):
    """Likelihoods by ``continuations``, whole texts by ``score``, greedy text by ``go_on``.

    An empty context is a separator, as a document begins in training; one that is not empty stands alone, as
    the harness has it for other models.
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, window: int) -> None:
        super().__init__()
        self.model, self.text, self.window = model, tokenizer, window

    @property
    def eot_token_id(self) -> int:
        separator = known_separator(self.text, self.model.embedding.num_embeddings)
        if separator is None:
            raise HarnessError(
                "a task asks for text after nothing, and this model has no separator to begin with"
            )
        return separator

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        return self.text.encode(string)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        return continuations(self.model, [(context, after) for _, context, after in requests], self.window)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        vocab = self.model.embedding.num_embeddings
        texts = [encode("a text of the task", [request.args[0]], self.text, vocab) for request in requests]
        how = Windows(self.window, self.window)
        return [-float(score(self.model, text, how).nats.sum()) for text in texts]

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        made = []
        for request in requests:
            prompt, asked = request.args
            if asked.get("do_sample") and asked.get("temperature", 1.0) > 0:
                raise HarnessError("a task asks for sampled text; only the likeliest is given here")
            stops = asked.get("until") or []
            stops = [stops] if isinstance(stops, str) else list(stops)
            ids = self.text.encode(prompt)[-self.window :] or [self.eot_token_id]
            made.append(go_on(self.model, self.text, ids, stops, int(asked.get("max_gen_toks", 256))))
        return made
