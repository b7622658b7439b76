"""Kernels that no one here wrote: those of fla, run by the interpreter or compiled, beside ours.

    TRITON_INTERPRET=1 python -m tests.blocks.fla_peer gated_delta      # its results against ours, in float32
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
import torch.nn.functional as F
from torch import Tensor
from triton.runtime.autotuner import Autotuner

from blocks.kernels.gpu import interpreted

ALLOWED = 2e-5
B, H, T, K = 1, 2, 96, 32


class Counter(int):
    """A number of a loop, as the compiler has it."""

    def to(self, kind: Any) -> "Counter":
        return self


def counted(*bounds: Any) -> Iterator[Counter]:
    return map(Counter, range(*map(int, bounds)))


def load_fla() -> tuple[Any, Any]:
    """fla's (gated delta rule, forgetting attention), made to run without a GPU."""
    plain = Autotuner.__init__

    def cut(self: Any, fn: Any, arg_names: Any, configs: Any, *rest: Any, **named: Any) -> None:
        plain(self, fn, arg_names, configs[:1], *rest, **named)

    Autotuner.__init__ = cut
    with warnings.catch_warnings():
        # fla announces on import that this machine has no GPU.
        warnings.simplefilter("ignore")
        delta = importlib.import_module("fla.ops.gated_delta_rule")
        fox = importlib.import_module("fla.ops.forgetting_attn")
    Autotuner.__init__ = plain
    if interpreted():
        for name, module in list(sys.modules.items()):
            if name.startswith("fla.ops"):
                module.range = counted  # pyright: ignore[reportAttributeAccessIssue]
    return delta.chunk_gated_delta_rule, fox.parallel_forgetting_attn


def draw() -> tuple[list[Tensor], list[Tensor]]:
    """Inputs of the delta rule, and of forgetting attention."""
    rng = torch.Generator().manual_seed(0)
    q, k, v, other = (torch.randn(B, T, H, K, generator=rng) for _ in range(4))
    gates = [F.logsigmoid(torch.randn(B, T, H, generator=rng) + 1) for _ in range(2)]
    b, s = torch.randn(B, T, H, generator=rng).sigmoid(), torch.randn(B, H, K, K, generator=rng)
    unit = F.normalize(q, dim=-1) * K**-0.5, F.normalize(k, dim=-1)
    return [*unit, v, gates[0], b, s], [q, k, other, gates[1]]


def pairs() -> dict[str, tuple[Any, Any, list[Tensor]]]:
    """Kernel -> (ours, fla's, inputs), both of one signature."""
    from blocks.kernels import triton_delta, triton_fox

    delta, fox = load_fla()
    for_delta, for_fox = draw()

    def fla_delta(q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, s: Tensor) -> Any:
        return delta(q, k, v, g=log_a, beta=b, scale=1.0, initial_state=s, output_final_state=True)

    def fla_fox(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Any:
        return fox(q, k, v, log_f)

    def our_fox(q: Tensor, k: Tensor, v: Tensor, log_f: Tensor) -> Any:
        return triton_fox.forgetting_attention(q, k, v, log_f, log_f[:, :0])

    return {
        "gated_delta": (triton_delta.gated_delta, fla_delta, for_delta),
        "fox": (our_fox, fla_fox, for_fox),
    }


def results(function: Any, inputs: list[Tensor]) -> list[Tensor]:
    inputs = [x.clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    outs = [out] if isinstance(out, Tensor) else list(out)
    return [*outs, *torch.autograd.grad(outs, inputs, [y.detach().cos() for y in outs])]


def agree(name: str) -> int:
    """How far the two lie apart, at worst; 1 where that is too far."""
    ours, theirs, inputs = pairs()[name]
    found = zip(results(ours, inputs), results(theirs, inputs), strict=True)
    apart = max(float(((a - b).abs().amax() / b.abs().amax()).detach()) for a, b in found)
    print(f"{name:<12} ours and fla's differ by {apart:.1e}, outputs and gradients at worst")
    return int(not apart <= ALLOWED)


def tabulate(name: str) -> int:
    """fla's kernels in bfloat16, 1024 tokens and heads of 64, as ``compile_table`` shows ours; no bounds."""
    from tests.blocks.ahead import launches
    from tests.blocks.compile_table import show

    def large(x: Tensor) -> Tensor:
        sizes = [{T: 1024, K: 64}.get(n, n) for n in x.shape]
        kind = torch.bfloat16 if x.shape[1:] == (T, H, K) else torch.float32
        return torch.empty(sizes, dtype=kind, device="meta").requires_grad_()

    _, theirs, inputs = pairs()[name]
    for launch in launches(theirs, [large(x) for x in inputs]):
        show("fla", launch, None)
    return 0


if __name__ == "__main__":
    sys.exit(agree(sys.argv[1]) if interpreted() else tabulate(sys.argv[1]))
