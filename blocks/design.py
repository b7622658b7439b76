"""What a language model has beside its layers: each part one value, written in the notation of schedules.

inputs: bigram(buckets=2048, dim=128) + norm + smear      blocks.inputs
residual: x0_mix + unet + ln_scale + branch_scale         blocks.residual
values: embedding(dim=128)                                blocks.values
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from blocks.base import OptionError
from blocks.inputs import INPUTS, Input
from blocks.notation import NotationError, check_option, literal, parse_text, refuse, show_call, suggest
from blocks.residual import RESIDUAL, Part
from blocks.values import VALUES, Embedding

__all__ = ["PLAIN", "Design", "DesignError", "Init", "Norms", "design_of"]

Norms = Literal["gain", "bare"]
Init = Literal["blocks", "orthogonal"]

T = TypeVar("T")


class DesignError(NotationError):
    """A list of parts does not parse, or names what nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """The model around its layers; as it stands by default, it is the plain pre-norm model.

    inputs: what happens to the embedded tokens, in order. residual: how layers are joined. values: what
    blocks with ``values=True`` add to theirs. norms: of every block's input and of the last sum, with a
    learned ``gain`` or ``bare``. softcap: logits c are put out as
    softcap tanh(c / softcap) (Bello et al. 2016; Gemma 2), None for as they are. init: as ``blocks`` start by
    themselves; or ``orthogonal``, with every block's last projection at 0, so that the stack starts as
    the identity.
    """

    inputs: tuple[Input, ...] = ()
    residual: tuple[Part, ...] = ()
    values: Embedding | None = None
    norms: Norms = "gain"
    softcap: float | None = None
    init: Init = "blocks"

    def __post_init__(self) -> None:
        if self.softcap is not None and not self.softcap > 0:
            raise OptionError(f"softcap is {self.softcap:g}; it must be above 0, or None")
        for name, kinds in (("norms", Norms), ("init", Init)):
            if getattr(self, name) not in get_args(kinds):
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; known are {' and '.join(get_args(kinds))}"
                )
        kinds = [type(part) for part in self.residual]
        if len(set(kinds)) < len(kinds):
            raise OptionError("residual: one part stands there twice; each may stand once")


PLAIN = Design()


def design_of(
    inputs: str | None = None, residual: str | None = None, values: str | None = None, **rest: Any
) -> Design:
    """The design that texts and plain values describe. Raises DesignError, OptionError."""
    embeddings = _parts(values, VALUES, "embedding of values")
    if len(embeddings) > 1:
        raise DesignError(f"{values!r} are several embeddings of values; a model has one at most")
    return Design(
        values=next(iter(embeddings), None),
        inputs=_parts(inputs, INPUTS, "input part"),
        residual=_parts(residual, RESIDUAL, "residual part"),
        **rest,
    )


def show(parts: tuple[Any, ...], registry: Mapping[str, type[Any]]) -> str | None:
    """The text of ``parts``, None where there are none."""
    words = {cls: name for name, cls in registry.items()}
    return " + ".join(show_call(words[type(part)], part) for part in parts) or None


def _parts(text: str | None, registry: Mapping[str, type[T]], what: str) -> tuple[T, ...]:
    if text is None:
        return ()
    text = text.strip()

    def read(node: ast.expr) -> tuple[T, ...]:
        match node:
            case ast.BinOp(left, ast.Add(), right):
                return read(left) + read(right)
            case ast.Name(id=name):
                return (make(node, name, []),)
            case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
                return (make(node, name, keywords),)
        refuse(text, node, f"expected the name of an {what}, such as {next(iter(registry))}", DesignError)

    def make(node: ast.expr, name: str, keywords: list[ast.keyword]) -> T:
        if name not in registry:
            refuse(text, node, f"unknown {what} {name!r}{suggest(name, registry)}", DesignError)
        options: dict[str, Any] = {}
        for keyword in keywords:
            known, value = literal(keyword.value)
            if keyword.arg is None or not known:
                refuse(
                    text, keyword.value, f"options are named, and plain: {name}(option=value)", DesignError
                )
            options[keyword.arg] = value
        try:
            checked = {key: check_option(name, registry[name], key, value) for key, value in options.items()}
            return registry[name](**checked)
        except (NotationError, OptionError) as exc:
            refuse(text, node, str(exc), DesignError)

    return read(parse_text(text, DesignError))
