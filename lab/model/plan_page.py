"""``lab plan`` and ``lab validate`` of a specification: its budget as a page and as a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.counts import short
from blocks.base import Block
from blocks.cost import counts, state_size
from lab.describe import LENGTHS
from lab.model.budget import Budget, Device, Memory, budget, device_named, matmul_rate
from lab.model.form import Spec
from lab.model.spec import design_of, load, schedule_of, shape_of
from lab.progress import duration
from lab.terminal import emit, note, percent, plural, say, table

__all__ = ["plan_model", "validate_model"]

BYTES = 4  # a scalar of state in float32
PARTS = ("weights", "gradients", "optimiser", "average", "exchange", "activations", "logits", "working")


def validate_model(path: Path, overrides: list[str], blocks: dict[str, type[Block]], json: bool) -> None:
    """Say that a specification is valid, and in a line what it is."""
    spec = load(path, overrides, blocks)
    made = counts(schedule_of(spec, blocks))
    if json:
        emit({"valid": True, "file": str(path), "kind": spec.kind, "name": spec.name, "layers": made.depth})
        return
    steps = f"{plural(spec.train.steps, 'step')} of {spec.train.batch} x {spec.data.length:,} tokens"
    say(f"{path} is valid: a model of {plural(made.depth, 'layer')}, {steps}")


def plan_model(
    path: Path,
    overrides: list[str],
    blocks: dict[str, type[Block]],
    devices: list[str],
    count: int,
    json: bool,
) -> None:
    """Print what a training costs. Raises SpecError and BudgetError."""
    spec = load(path, overrides, blocks)
    named = [device_named(text, spec.train.precision, matmul_rate) for text in devices]
    found = budget(spec, count, blocks)
    if json:
        emit(_document(spec, found, named, count, blocks))
        return
    say("\n\n".join(_page(spec, found, named, count, blocks)))
    rows = spec.train.micro or spec.train.batch // count
    if rows * count > spec.train.batch or spec.train.batch % (rows * count):
        note(f"warning: the batch of {spec.train.batch} rows is no multiple of {count} x {rows} rows a pass")


def _states(spec: Spec, blocks: dict[str, type[Block]]) -> list[tuple[int, int]]:
    """Tokens and the bytes of state of one sequence after them."""
    layers, shape, design = schedule_of(spec, blocks), shape_of(spec), design_of(spec)
    return [(n, BYTES * state_size(layers, shape, n, design)) for n in sorted({*LENGTHS, spec.data.length})]


def _fits(spec: Spec, memory: Memory, device: Device, count: int) -> tuple[int, bool | None]:
    """The most rows of a pass that the device holds and that split the batch, and whether the plan fits."""
    if device.memory is None:
        return 0, None
    most, share = memory.most_rows(device.memory), max(1, spec.train.batch // count)
    rows = max((n for n in range(1, min(most, share) + 1) if share % n == 0), default=0)
    return rows, memory.rows <= most


def _page(
    spec: Spec, found: Budget, devices: list[Device], count: int, blocks: dict[str, type[Block]]
) -> Iterator[str]:
    made, total, train = counts(schedule_of(spec, blocks)), sum(found.params.values()), spec.train
    kinds = ", ".join(f"{getattr(made, kind)} {kind}" for kind in ("linear", "window", "full"))
    yield (
        f"{spec.name}: {short(total)} parameters, {plural(made.depth, 'layer')} ({kinds}), "
        f"{short(found.tokens)} tokens, {found.tokens / total:.1f} a parameter"
    )
    rows = [(part, f"{size:,}", percent(size / total)) for part, size in found.params.items() if size]
    yield table(("parameters", "count", "share"), [("total", f"{total:,}", "100.0 %"), *rows])
    yield table(
        ("tokens", "state of a sequence, fp32"),
        [(f"{length:,}", f"{short(size)}B") for length, size in _states(spec, blocks)],
    )
    again = ", and forward again (recompute)" if train.recompute else ""
    yield (
        f"FLOPs     {short(found.flops)} a token, forward; {found.all_flops:.3g} in all, "
        f"backward counted twice{again}\n"
        f"training  {plural(found.steps, 'step')} of {train.batch} x {spec.data.length:,} tokens"
    )
    memory = found.memory
    shared = f", the first four over {count} devices" if train.parallel == "fsdp" and count > 1 else ""
    parts = [(part, f"{short(getattr(memory, part))}B") for part in PARTS if getattr(memory, part)]
    yield (
        f"Memory of one device at {plural(memory.rows, 'row')} a pass (estimated{shared}):\n"
        f"{table(('', 'bytes'), [*parts, ('sum', f'{short(memory.total)}B')])}\n"
        f"each row more: {short(memory.row)}B"
    )
    yield _devices(spec, found, devices, count)


def _devices(spec: Spec, found: Budget, devices: list[Device], count: int) -> str:
    rows = []
    for device in devices:
        most, fits = _fits(spec, found.memory, device, count)
        told = {
            True: "fits",
            False: f"too large; train.micro={most} fits" if most else "too large",
            None: "-",
        }
        rows.append(
            (
                device.name if count == 1 else f"{count} x {device.name}",
                f"{device.peak:.3g}",
                f"{device.mfu:g}",
                duration(found.seconds(device, count)),
                told[fits],
                device.source,
            )
        )
    header = ("device", "peak FLOP/s", "MFU", "time", "memory", "peak from")
    return f"{table(header, rows)}\nMFU is assumed; --device NAME:PEAK@MFU gives another."


def _document(
    spec: Spec, found: Budget, devices: list[Device], count: int, blocks: dict[str, type[Block]]
) -> dict[str, Any]:
    memory = found.memory
    return {
        "name": spec.name,
        "params": {"total": sum(found.params.values()), **found.params},
        "layers": vars(counts(schedule_of(spec, blocks))),
        "state": [{"length": length, "bytes": size} for length, size in _states(spec, blocks)],
        "flops_per_token": found.flops,
        "flops": found.all_flops,
        "tokens": found.tokens,
        "steps": found.steps,
        "memory": {
            "rows": memory.rows,
            **{part: getattr(memory, part) for part in PARTS},
            "total": memory.total,
            "each_row": memory.row,
        },
        "devices": [
            {
                "name": device.name,
                "count": count,
                "peak": device.peak,
                "mfu": device.mfu,
                "source": device.source,
                "seconds": found.seconds(device, count),
                "fits": _fits(spec, memory, device, count)[1],
                "micro": _fits(spec, memory, device, count)[0] or None,
            }
            for device in devices
        ],
    }
