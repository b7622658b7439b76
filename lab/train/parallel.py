"""One training in several processes, as ``torchrun`` starts them: who am I, and how the work is shared.

Processes talk by gloo on CPUs and nccl on GPUs. A lone process needs neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from blocks.model import LanguageModel

__all__ = ["Crew", "Way", "crew", "distribute", "forget_gathered", "synchronised", "whole"]

Way = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Crew:
    """The processes of a training and this one among them; ``rank`` 0 writes and speaks."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """The sums of ``values`` over all processes, in float64."""
        if self.world == 1:
            return list(values)
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor(values, dtype=kind, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def wait(self) -> None:
        """Return once every process has come here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def crew() -> Iterator[Crew]:
    """Join the processes that the environment (``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK``) tells of."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world == 1:
        yield Crew(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Crew(rank, world, device)
    finally:
        dist.destroy_process_group()


def distribute(model: LanguageModel, way: Way, crew: Crew) -> nn.Module:
    """What to call instead of ``model``, which keeps its names; ``fsdp`` makes shards of its parameters."""
    if crew.world == 1:
        return model
    if way == "ddp":
        ids = [crew.device.index] if crew.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, forward_sync_buffers=False)
    mesh = init_device_mesh(crew.device.type, (crew.world,))
    # Each is called once a pass, however many documents a row packs, so that all processes gather alike.
    for part in model.stack.parts():
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


@contextmanager
def synchronised(called: nn.Module, last: bool) -> Iterator[None]:
    """Around one forward and backward pass: gradients meet those of other processes only in the last one."""
    if isinstance(called, FSDPModule):
        called.set_requires_gradient_sync(last)
    alone = not last and isinstance(called, DistributedDataParallel)
    with called.no_sync() if alone else nullcontext():  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        yield


def forget_gathered(called: nn.Module) -> None:
    """Let go of weights that were gathered from shards, so that the next pass gathers them anew.

    A pass without a backward one leaves the outermost of them gathered; shards that are changed then, as by
    putting an average in their place, would not be seen.
    """
    for module in called.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """The tensor that ``tensor`` is a shard of; itself where it is whole. All processes must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
