"""What ``lab eval`` measures, as plain values for its page and its JSON; no printing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from blocks.model import LanguageModel
from blocks.schedule import Schedule
from lab.evaluate.adaptation import Adaptation
from lab.evaluate.bits import Losses, Passes, Tick, Windows, bits_per_byte, by_context, score
from lab.evaluate.eval_ttt import Adapted, leaks, score_first, train_then_score_contaminated
from lab.evaluate.sources import Source
from lab.evaluate.text import Text, TextError
from lab.progress import Progress

__all__ = ["Forms", "adapted", "plain"]


@dataclass(frozen=True)
class Forms:
    """Which forms of test-time training are asked for, with their settings."""

    score_first: Adaptation | None
    contaminated: Adaptation | None


@contextmanager
def _counted(title: str, total: int) -> Iterator[Tick]:
    """Progress over ``total`` targets on stderr."""
    with Progress(unit="tokens") as bar:
        bar.start(title, 0, total)
        done = 0

        def tick(scored: int) -> None:
            nonlocal done
            done += scored
            bar.step("scored", done, total, None)

        yield tick


def plain(model: LanguageModel, source: Source, how: Windows | Passes, limit: int | None) -> dict[str, Any]:
    """Bits per byte of a text and the loss by context."""
    text = source.whole(limit)
    with _counted(f"scoring {text.name}", len(text.ids)) as tick:
        losses = score(model, text, how, tick)
    return {
        **_about(text, source),
        "lossless": source.lossless(text),
        "how": asdict(how),
        **_figures(losses, text),
        "by_context": by_context(losses),
    }


def _about(text: Text, source: Source) -> dict[str, Any]:
    return {
        "text": text.name,
        "data": asdict(source.origin),
        "bytes": text.size,
        "tokens": len(text.ids),
        "first_token": text.first_token,
        "documents_apart": text.apart,
    }


def _figures(losses: Losses, text: Text) -> dict[str, float]:
    nats = float(losses.nats.sum())
    return {"bits_per_byte": bits_per_byte(nats, text.size), "nats_per_token": nats / len(text.ids)}


def adapted(
    model: LanguageModel,
    schedule: Schedule,
    source: Source,
    how: Windows,
    forms: Forms,
    fresh: float,
    limit: int | None,
) -> dict[str, Any]:
    """The text without its fresh share, by the model as it is and by each form asked for.

    ``fresh`` is the share at the end that no training sees, scored by the model before and after.
    """
    text, aside = source.divided(fresh, limit)

    def bits(one: LanguageModel, of: Text) -> float:
        return bits_per_byte(float(score(one, of, how).nats.sum()), of.size)

    found: dict[str, Any] = {
        **_about(text, source),
        "how": asdict(how),
        "bits_per_byte": bits(model, text),
        "fresh": {"share": fresh, "bytes": aside.size, "bits_per_byte": bits(model, aside)},
    }
    if (plan := forms.score_first) is not None:
        first = partial(score_first, model, schedule, how=how, plan=plan)
        title = f"scoring {text.name} chunk by chunk, learning from each afterwards"
        with _counted(title, len(text.ids)) as tick:
            after = first(text, tick=tick)
        found["score_first"] = {
            "bits_per_byte": bits_per_byte(float(after.losses.nats.sum()), text.size),
            # With reset no weights are left over that have learnt from all documents.
            "fresh_bits_per_byte": None if plan.reset else bits(after.model, aside),
            "steps": after.steps,
            "leaks": _leaks(first, text, plan.chunk),
            "settings": plan.model_dump(mode="json"),
        }
    if (plan := forms.contaminated) is not None:
        then = partial(train_then_score_contaminated, model, schedule, how=how, plan=plan)
        with _counted(f"CONTAMINATED: learning {text.name} before it is scored", len(text.ids)) as tick:
            after = then(text, tick=tick)
        found["contaminated"] = {
            "contaminated_bits_per_byte": bits_per_byte(float(after.losses.nats.sum()), text.size),
            "fresh_bits_per_byte": bits(after.model, aside),
            "steps": after.steps,
            "leaks": _leaks(then, text, plan.row),
            "settings": plan.model_dump(mode="json"),
        }
    return found


def _leaks(procedure: Callable[[Text], Adapted], text: Text, chunk: int) -> bool | None:
    """The detector on the beginning of a text, two chunks or what there is; None where it cannot tell."""
    head = replace(text, ids=text.ids[: 2 * chunk])
    try:
        return leaks(lambda of: procedure(of).losses, head, len(head.ids) // 2)
    except TextError:  # of one token, or with nothing but separators behind
        return None
