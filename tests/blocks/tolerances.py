"""How far two computations of the same thing may lie apart: one table for every test of a block.

A figure is never loosened to make a test pass; an exception is a row with its reason.
"""

EXACT = 1e-8
"""float64, absolute plus relative: two orders of summation, nothing else."""

HARD_FLOAT32 = {"torch": 2e-4, "c": 2e-4}
"""float32 on hard inputs, by form, against float64 of the reference, over the largest magnitude or 1."""

CAUSALITY = 0.0
"""The largest gradient that an output may have by a later input, at inputs and gradients of about 1."""

CAUSALITY_EXCEPTIONS: dict[str, tuple[float, str]] = {
    "hyena": (1e-12, "the FFT takes all of a sequence at once; what comes of the future cancels to rounding"),
}
"""Block -> (tolerance, reason)."""

BF16 = 2e-2
"""|y - y64| / |y64| over a whole output, y64 in float64 from the same rounded weights and input.

One rounding to bfloat16 is 2e-3 on average; a block chains some five of them.
"""

BF16_EXCEPTIONS: dict[str, tuple[float, str]] = {
    "sparse": (0.15, "rounding can swap two channels at the cut, which differ by their whole size"),
}
"""Block -> (tolerance, reason)."""

HARD_FLOAT32_EXCEPTIONS: dict[str, tuple[float, str]] = {}
"""Core/case/form -> (tolerance, reason)."""


NO_EFFECT = "the released package computes it and leaves it out: docs/genesis.md"
NEXT_CHUNK = "the rule reaches the output from the second chunk on, which short sequences do not have"
WITHOUT_GRADIENT: dict[str, dict[str, str]] = {
    "genesis_gla(rule='decay', kv_heads=2)": {"write.weight": NO_EFFECT, "write.bias": NO_EFFECT},
    "genesis_gla(rule='chunk_delta', kv_heads=2)": {"write.weight": NEXT_CHUNK, "write.bias": NEXT_CHUNK},
    "genesis_gla(rule='chunk_delta', chunk=5, conv=1)": {
        "write.weight": NEXT_CHUNK,
        "write.bias": NEXT_CHUNK,
    },
}
"""Block text -> parameter -> why it may go without a gradient. Names of parameters, never whole blocks."""


def causality(block: str) -> float:
    return CAUSALITY_EXCEPTIONS.get(block, (CAUSALITY, ""))[0]


def bf16(block: str) -> float:
    return BF16_EXCEPTIONS.get(block, (BF16, ""))[0]


def hard_float32(core_case: str, form: str) -> float:
    return HARD_FLOAT32_EXCEPTIONS.get(f"{core_case}/{form}", (HARD_FLOAT32[form], ""))[0]
