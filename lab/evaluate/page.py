"""The results of ``lab eval`` as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.data.origin import Origin
from lab.terminal import percent, plural, table

__all__ = ["page"]

Document = Mapping[str, Any]


def page(document: Document) -> str:
    """Everything that was measured, part by part."""
    parts = [f"{document['name']}  ({document['model']})"]
    parts += [_text(one) for one in document.get("texts", ())]
    if "ttt" in document:
        parts.append(_ttt(document["ttt"]))
    if "synthetic" in document:
        parts.append(_synthetic(document["synthetic"]))
    if "tasks" in document:
        parts.append(_tasks(document["tasks"], document.get("card")))
    return "\n\n".join(parts)


def _how(how: Document) -> str:
    if "chunk" in how:
        return f"in one pass, state carried over chunks of {how['chunk']:,}"
    return f"windows of {how['window']:,}, stride {how['stride']:,}"


def _about(found: Document) -> str:
    apart = "; documents apart" if found["documents_apart"] else ""
    return (
        f"{found['text']}: {found['bytes']:,} bytes, {found['tokens']:,} tokens, each scored once; "
        f"{_how(found['how'])}{apart}.\nThe first token is {found['first_token']}.\n"
        f"data: {Origin(**found['data']).words}"
    )


def _text(found: Document) -> str:
    rows = [
        (f"{row['from']:,}" if row["from"] == row["to"] else f"{row['from']:,} to {row['to']:,}",
         f"{row['targets']:,}", f"{row['bits']:.4f}")
        for row in found["by_context"]
    ]  # fmt: skip
    warning = (
        ()
        if found["lossless"]
        else ("The tokenizer does not give this text back: the bits are those of what it makes of it.",)
    )
    return "\n\n".join(
        (
            f"{found['bits_per_byte']:.4f} bits per byte  ({found['nats_per_token']:.4f} nats a token)",
            _about(found),
            *warning,
            table(("tokens before it", "targets", "bits a token"), rows),
        )
    )


_LEAK = {
    True: "the scores hang on text that comes later",
    False: "no score hangs on text that comes later",
    None: "the text is too short to look for leaks",
}


def _ttt(found: Document) -> str:
    plain, fresh = found["bits_per_byte"], found["fresh"]
    rows = [("no training", f"{plain:.4f}", "-", f"{fresh['bits_per_byte']:.4f}", "-")]
    notes = []
    for key, label, metric in (
        ("score_first", "score-first", "bits_per_byte"),
        ("contaminated", "CONTAMINATED", "contaminated_bits_per_byte"),
    ):
        if key not in found:
            continue
        one = found[key]
        aside = one["fresh_bits_per_byte"]
        rows.append(
            (
                label,
                f"{one[metric]:.4f}",
                _signed(one[metric] - plain),
                "weights are reset" if aside is None else f"{aside:.4f}",
                "-" if aside is None else _signed(aside - fresh["bits_per_byte"]),
            )
        )
        notes.append(f"{label}: {plural(one['steps'], 'step')}; {_LEAK[one['leaks']]}.")
    if "contaminated" in found:
        notes.append(
            "CONTAMINATED learnt the text before scoring it: its figure is none of bits per byte.\nWhat it "
            "gains on the text beyond what it gains on the fresh share is learnt by heart."
        )
    header = ("", "bits per byte", "change", "of the fresh share", "change")
    about = (
        f"{_about(found)}\nThe fresh share is the {fresh['bytes']:,} bytes after it, which no training saw."
    )
    return "\n\n".join((about, table(header, rows), "\n".join(notes)))


def _signed(change: float) -> str:
    return f"{change:+.4f}".replace("-", "\N{MINUS SIGN}")


def _synthetic(found: list[Document]) -> str:
    rows = [row for row in found if "not_asked" not in row]
    fitted = any("fit" in row for row in rows)
    header = ("", "right", "right among symbols", "chance", "within 32 tokens")
    header += ("after training", "from scratch") if fitted else ()
    body = []
    for row in rows:
        cells = [percent(row.get(key)) for key in ("acc", "acc_among", "chance", "window_share")]
        if fitted:
            cells += [percent(row["fit"][kind]["acc"]) for kind in ("trained", "scratch")]
        body.append((row["task"], *cells))
    told = [
        "Asked in printable characters of the model's own, without training.\nRight: the likeliest of all "
        "ids is the answer; among symbols: the likeliest of the task's ids is."
    ]
    if fitted:
        told.append(
            f"After {plural(rows[0]['fit']['steps'], 'step')} on the task: from the trained trunk, and the "
            "same architecture from scratch."
        )
    told += [f"Not asked: {row['not_asked']}." for row in found if "not_asked" in row]
    return "\n\n".join((table(header, body), "\n".join(told)))


def _tasks(rows: list[Document], caveat: str | None) -> str:
    header = ("", "metric", "value", "standard error", "examples", *(("card",) if caveat else ()))
    body = []
    for row in rows:
        cells: list[str] = [
            row["task"],
            row["metric"],
            f"{row['value']:.4f}",
            "-" if row["error"] is None else f"{row['error']:.4f}",
            f"{row['examples']:,}",
        ]
        if caveat:
            cells.append("-" if row["card"] is None else f"{row['card']:.4f}")
        body.append(cells)
    return "\n\n".join((table(header, body), *((f"Card: {caveat}.",) if caveat else ())))
