"""What the contract tests share: the shape, the lengths, modules off their starting point, comparisons.

``python -m tests.blocks.harness`` adds the parameter names of newly listed blocks to state_dict_names.json.
Names that are stored already are never rewritten: weights on disk depend on them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blocks import BLOCKS
from blocks.base import Block, Kernel, Shape
from blocks.schedule import parse
from tests.blocks.tolerances import EXACT
from tests.blocks.variants import VARIANTS

SHAPE = Shape(dim=32, heads=4)
LENGTHS = (1, 2, 63, 64, 65, 130)
BATCH = 2
NAMES = Path(__file__).with_name("state_dict_names.json")


def cases(blocks: Mapping[str, type[Block]]) -> list[str]:
    """Every block with its defaults, then with the options of its row."""
    return [text for name in blocks for text in (name, *VARIANTS.get(name, []))]


def block_of(text: str, blocks: Mapping[str, type[Block]]) -> Block:
    ((block,),) = parse(text, blocks)
    return block


def build(block: Block, kernel: Kernel = "torch", shape: Shape = SHAPE, seed: int = 0) -> nn.Module:
    """A module in float64, each parameter moved off its start, where a 1 or a 0 could hide a mistake."""
    torch.manual_seed(seed)
    module = block.build(shape, kernel).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


def noise(*sizes: int, seed: int = 1) -> Tensor:
    return torch.randn(*sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensors(state: Mapping[str, Tensor | int]) -> dict[str, Tensor]:
    """The floating-point part of a state; counters apart."""
    return {k: t for k, t in state.items() if isinstance(t, Tensor) and t.is_floating_point()}


def run(module: nn.Module, x_BTD: Tensor, cuts: Sequence[int]) -> tuple[Tensor, dict[str, Any]]:
    """``x`` in pieces of these lengths, the state handed on: the joined output and the last state."""
    state, out = None, []
    for piece in x_BTD.split(list(cuts), dim=1):
        y, state = module(piece, state)
        out.append(y)
    return torch.cat(out, dim=1), dict(state or {})


def assert_same(got: Tensor, expected: Tensor, what: str, tolerance: float = EXACT) -> None:
    """Finite, and equal up to ``tolerance``, absolute plus relative."""
    assert got.shape == expected.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(expected.shape)}"
    assert bool(expected.isfinite().all()), f"{what}: the expected value is not finite"
    torch.testing.assert_close(
        got, expected, atol=tolerance, rtol=tolerance, msg=lambda text: f"{what}: {text}"
    )


def assert_same_state(got: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> None:
    assert got.keys() == expected.keys(), f"{what}: the state holds {sorted(got)}, not {sorted(expected)}"
    for key, value in expected.items():
        if isinstance(value, Tensor):
            assert_same(got[key], value, f"{what}: state {key}")
        else:
            assert got[key] == value, f"{what}: state {key} is {got[key]}, not {value}"


def stored_names() -> dict[str, list[str]]:
    return json.loads(NAMES.read_text()) if NAMES.exists() else {}


def main() -> None:
    stored = stored_names()
    for text in cases(BLOCKS):
        stored.setdefault(text, list(build(block_of(text, BLOCKS)).state_dict()))
    NAMES.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
