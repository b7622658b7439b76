"""fla's own kernels, which ``kernel="fla"`` takes, run by the interpreter or compiled, beside ours.

    TRITON_INTERPRET=1 python -m tests.blocks.fla_peer gated_delta      # against the reference, in float32
    python -m tests.blocks.fla_peer gated_delta                         # what compilers make of it

They are written for a GPU: here each autotuner is cut to its first configuration, since none can be timed,
and loops of the interpreter count in numbers that have ``.to``, as those of the compiler have.
"""

import importlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from triton.runtime.autotuner import Autotuner

from blocks.kernels import check
from blocks.kernels.gpu import interpreted

ALLOWED = 2e-5
LENGTH = 70
"""More than a chunk of theirs, and no multiple of one."""


class Counter(int):
    """A number of a loop, as the compiler has it."""

    def to(self, kind: Any) -> "Counter":
        return self


def counted(*bounds: Any) -> Iterator[Counter]:
    return map(Counter, range(*map(int, bounds)))


def load_fla() -> None:
    """Import fla's kernels so that they run without a GPU."""
    plain = Autotuner.__init__

    def cut(self: Any, fn: Any, arg_names: Any, configs: Any, *rest: Any, **named: Any) -> None:
        plain(self, fn, arg_names, configs[:1], *rest, **named)

    Autotuner.__init__ = cut
    with warnings.catch_warnings():
        # fla announces on import that this machine has no GPU.
        warnings.simplefilter("ignore")
        for module in ("gated_delta_rule", "gla", "forgetting_attn"):
            importlib.import_module(f"fla.ops.{module}")
    Autotuner.__init__ = plain
    if interpreted():
        for name, module in list(sys.modules.items()):
            if name.startswith("fla.ops"):
                module.range = counted  # pyright: ignore[reportAttributeAccessIssue]


def agree(name: str) -> int:
    """How far fla's kernel is from the reference at worst; 1 where that is too far."""
    load_fla()
    worst = check.worst(check.compare(check.ops("fla")[name], torch.float32, torch.device("cpu"), LENGTH))
    print(f"{name:<12} fla's is off by {worst.error:.1e} in {worst.result} at worst")
    return int(not worst.error <= ALLOWED)


def tabulate(name: str) -> int:
    """fla's kernels in bfloat16, 1024 tokens and heads of 64, as ``compile_table`` shows ours; no bounds."""
    from tests.blocks.ahead import launches
    from tests.blocks.compile_table import show

    load_fla()
    op = check.ops("fla")[name]
    drawn = op.draw(torch.Generator().manual_seed(0), 1024, check.Sizes(1, 2, 64, 64))
    kinds = [torch.float32 if i in op.wide else torch.bfloat16 for i in range(len(drawn))]
    given = [
        torch.empty(x.shape, dtype=kind, device="meta").requires_grad_()
        for x, kind in zip(drawn, kinds, strict=True)
    ]
    for launch in launches(op.run, given):
        show("fla", launch, None)
    return 0


if __name__ == "__main__":
    sys.exit(agree(sys.argv[1]) if interpreted() else tabulate(sys.argv[1]))
