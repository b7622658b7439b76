"""The training loop: plain, one optimiser step after another, the same for one process and for many.

B rows, T time, V vocabulary. A step's loss and gradient are means over all its targets that count, whatever
passes and processes they were spread over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.utils.checkpoint import checkpoint

from blocks.base import Kernel, Losses
from blocks.cost import flops_per_token
from lab.model.form import Spec
from lab.model.spec import Blocks, build, design_of, schedule_of, shape_of
from lab.train import checkpoint as checkpoints
from lab.train.average import Average
from lab.train.blame import where_it_broke
from lab.train.checkpoint import Progress
from lab.train.folder import Step
from lab.train.loss import IGNORE, summed_loss
from lab.train.meter import memory_peak
from lab.train.optimisers import optimisers, set_rate
from lab.train.parallel import Crew, distribute, forget_gathered, synchronised, whole
from lab.train.rates import share_at
from lab.train.rows import Batch, HeldOut, Source, batch_of, share_of, windows
from lab.train.score import called_with, nats_of

__all__ = ["Diverged", "TrainError", "Trainer", "micro_of"]


class TrainError(ValueError):
    """A training cannot start or go on as it is asked for."""


class Diverged(ArithmeticError):
    """Loss or gradient are no longer finite; one sentence with the step and the place."""


class Trainer:
    """A training of ``spec`` in the processes of ``crew``, from its start or from a checkpoint.

    peak: FLOP/s of one process that ``mfu`` is held against. start: the weights that it begins with, by
    name; None for fresh ones, drawn by the seed.
    """

    def __init__(
        self,
        spec: Spec,
        source: Source,
        held_out: HeldOut,
        crew: Crew,
        kernel: Kernel,
        blocks: Blocks,
        peak: float,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        part = spec.train
        self.spec, self.source, self.held_out, self.crew = spec, source, held_out, crew
        self.micro = micro_of(spec, crew)
        torch.manual_seed(part.seed)
        self.model = build(spec, kernel, blocks)
        if start is not None:
            self.model.load_state_dict(start)
        self.model.to(crew.device)
        for residual in self.model.stack.parts():
            if part.recompute:
                residual.forward = partial(checkpoint, residual.forward, use_reentrant=False)
            if part.compile:
                residual.compile()
        self.params = sum(p.numel() for p in self.model.parameters())
        self.called = distribute(self.model, part.parallel, crew)
        self.optimisers = optimisers(self.model, part.optimiser)
        params = dict(self.model.named_parameters())
        self.average = Average(part.average, part.rate, part.steps, params) if part.average else None
        self.progress = Progress()
        self.saved = 0  # the step of the last checkpoint
        schedule, shape, design = schedule_of(spec, blocks), shape_of(spec), design_of(spec)
        forward = flops_per_token(schedule, shape, spec.model.vocab, spec.data.length, design)
        self._seconds_per_token = 3 * forward / (peak * crew.world)

    @property
    def precision(self) -> torch.autocast:
        """Where products are taken; weights, norms and sums stay in float32."""
        bf16 = self.spec.train.precision == "bf16"
        return torch.autocast(self.crew.device.type, torch.bfloat16, enabled=bf16)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint. Raises CheckpointError."""
        self.progress = checkpoints.restore(path, self.model, self.optimisers, self.average, self.crew)
        self.saved = self.progress.step

    def save(self, folder: Path) -> None:
        """Write a checkpoint of the step that was done last, unless that is there."""
        if self.saved == self.progress.step:
            return
        checkpoints.save(
            folder,
            self.model,
            self.optimisers,
            self.average,
            self.progress,
            self.spec.train.keep,
            self.crew,
        )
        self.saved = self.progress.step

    def run(
        self, folder: Path, told: Callable[[Step], None], stopping: Callable[[], bool] = lambda: False
    ) -> bool:
        """Train to the last step, saving in ``folder``; False if ``stopping`` ended it, saved, before.

        told: called after every step. stopping: asked before every step; one process that says so stops all.
        Raises Diverged, which leaves the checkpoints as they are.
        """
        part = self.spec.train
        while self.progress.step < part.steps:
            batches = self._batches(self.progress.step + 1)
            targets, stop = self.crew.total(float(_counted(batches)), float(stopping()))
            if stop:
                self.save(folder)
                return False
            line = self._step(batches, max(targets, 1.0))
            if line.step % part.eval_every == 0 or line.step == part.steps:
                score = self.score(windows(self.held_out.count, part.eval_rows))
                line = replace(line, valid_bpb=score)
            told(line)  # before it is saved: the log may be ahead of the checkpoint, never behind
            if line.step % part.save_every == 0 or line.step == part.steps:
                self.save(folder)
        return True

    def step(self) -> Step:
        """The next optimiser step alone: what ``run`` repeats, without scoring, saving and stopping."""
        batches = self._batches(self.progress.step + 1)
        (targets,) = self.crew.total(float(_counted(batches)))
        return self._step(batches, max(targets, 1.0))

    def score(self, indices: list[int]) -> float:
        """Bits per byte on held-out rows, by the average where there is one."""
        data, rows = self.spec.data, self.held_out
        args = (rows, indices, self.micro, data.documents, self.precision, self.crew)
        if self.average is None:
            nats, targets = nats_of(self.called, *args)
        else:
            with self.average.in_place():
                forget_gathered(self.called)
                nats, targets = nats_of(self.called, *args)
            forget_gathered(self.called)
        return nats / math.log(2) / (targets * rows.bytes_per_token)

    def weights(self) -> dict[str, Tensor]:
        """What the training leaves, whole, on the CPU: the average where there is one. All must call it."""
        kept: dict[str, Any] = dict(self.model.named_parameters())
        if self.average is not None and self.average.count:
            kept = self.average.values
        return {name: whole(value.detach()).cpu().clone() for name, value in kept.items()}

    def _batches(self, step: int) -> list[Batch]:
        documents = self.spec.data.documents
        passes = share_of(self.spec.train.batch, self.micro, self.crew)
        return [batch_of(self.source.rows(step - 1, rows), documents).to(self.crew.device) for rows in passes]

    def _step(self, batches: list[Batch], targets: float) -> Step:
        """One optimiser step over ``targets`` targets in all processes."""
        part, step, started = self.spec.train, self.progress.step + 1, time.perf_counter()
        sums = torch.zeros((), device=self.crew.device)
        for number, batch in enumerate(batches, start=1):
            with synchronised(self.called, last=number == len(batches)):
                own = Losses() if part.balance else None
                with self.precision:
                    logits_BTV = called_with(self.called, batch, own)
                nats, learned = summed_loss(logits_BTV, batch.targets, part.z_loss)
                for one in own.found if own is not None else ():
                    # Of a whole pass, where the rest is a sum over its targets.
                    learned = learned + part.balance * _counted([batch]) * one
                # Gradients are averaged over processes, and the mean over all targets is wanted.
                (learned * (self.crew.world / targets)).backward()
                sums += nats.detach()
        loss = self.crew.total(float(sums))[0] / targets
        params = [p for p in self.model.parameters() if p.grad is not None]
        norm = whole(get_total_norm([p.grad for p in params if p.grad is not None]))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            # Before anything is clipped: one that is no number would make all of them none.
            where = where_it_broke(self.model, self.called, batches, self.precision, self.crew)
            raise Diverged(
                f"step {step}: loss {loss:.3g}, gradient norm {norm:.3g}; first not finite: {where}"
            )
        if part.optimiser.clip is not None:
            clip_grads_with_norm_(params, part.optimiser.clip, norm)
        share = share_at(part.rate, step, part.steps)
        set_rate(self.optimisers, share)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step)
        return self._line(step, loss, float(norm), share * part.optimiser.lr, time.perf_counter() - started)

    def _line(self, step: int, loss: float, norm: float, lr: float, seconds: float) -> Step:
        tokens = self.spec.train.batch * self.spec.data.length
        done = Progress(step, self.progress.tokens + tokens, self.progress.seconds + seconds)
        self.progress = done
        return Step(
            step=step,
            loss=loss,
            grad_norm=norm,
            lr=lr,
            tokens=done.tokens,
            seconds=done.seconds,
            tokens_per_s=tokens / seconds,
            mfu=tokens * self._seconds_per_token / seconds,
            memory=memory_peak(self.crew.device),
        )


def _counted(batches: list[Batch]) -> int:
    """Targets that count."""
    return sum(int((batch.targets != IGNORE).sum()) for batch in batches)


def micro_of(spec: Spec, crew: Crew) -> int:
    """Rows of one forward pass. Raises TrainError where the batch does not split evenly."""
    part = spec.train
    mine, left = divmod(part.batch, crew.world)
    micro = mine if part.micro is None else part.micro
    if left or mine % micro:
        raise TrainError(
            f"train.batch is {part.batch} rows, {crew.world} processes at {micro} rows a pass; the batch "
            "must be a multiple of both together: change train.batch, train.micro or the number of processes"
        )
    return micro
