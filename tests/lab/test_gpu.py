"""Laws of the GPU's lines in ``lab doctor``: each names the sizes that were timed, and what is skipped is."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton is for Linux alone")

LINES = """
import torch
import lab.gpu
lab.gpu.DECODING, lab.gpu.CALLS = 64, 1
lab.gpu.BATCH, lab.gpu.HEADS, lab.gpu.KEY, lab.gpu.VALUE = 1, 1, 16, 16
for check in lab.gpu.timed(torch.device("cpu"), torch.float32, length=1, rounds=1):
    print(check.status, check.name, check.detail)
"""


def drawn(length: int = 33):
    from lab import gpu

    rng = torch.Generator().manual_seed(0)
    return {name: (op, gpu.case(op, rng, length)) for name, op in gpu.kernels().items()}


def test_what_is_timed_is_named_by_its_own_sizes() -> None:
    for name, (_, case) in drawn().items():
        numbers = {int(number) for number in re.findall(r"\d+", case.words)}
        first = case.tensors[0].shape[case.decoding :]  # one token is a batch of its own
        assert numbers.issuperset(first), (name, case.words)
        sizes = {size + more for x in case.tensors for size in x.shape for more in (0, -33)}
        kept = int(case.tensors[0].count_nonzero())
        assert numbers <= sizes | {kept}, (name, case.words)


def test_the_product_that_skips_is_timed_where_half_or_less_is_read() -> None:
    """Of 16 columns, which are read together, at most half hold anything."""
    _, case = drawn()["triton skipping_product"]
    assert case.decoding and case.tensors[0].shape[:2] == (1, 1)
    read = case.tensors[0].unflatten(-1, (-1, 16)).any(-1).double().mean()
    assert 0 < read <= 0.5


@pytest.mark.slow
def test_every_kernel_has_a_line_with_its_time(record_property) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LINES],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    record_property("table", done.stdout)
    lines = [line for line in done.stdout.splitlines() if " time triton " in line]  # fla's need a driver
    ours = [name for name in drawn() if name.startswith("triton ")]
    assert done.returncode == 0 and len(lines) == len(ours), done.stdout + done.stderr
    for line in lines:
        alone = "skipping" in line
        assert re.match(r"ok +time triton \w+ +[\d.]+ ms", line), line
        assert ("forward and backward" in line) != alone
