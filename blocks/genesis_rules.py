"""Two recurrences of Genesis-152M: plain decay (retention's, too), and a delta rule between chunks only.

B batch, T time, H heads, K key width, V value width; C tokens of a chunk, N chunks of all heads and sequences
together. Queries come scaled by K^-1/2, keys at unit length.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.chunks import join_chunks, span_sums, split_chunks

__all__ = ["chunk_delta", "chunk_delta_reference", "decayed", "decayed_reference"]

Memory = dict[str, Tensor]


def decayed_reference(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTH: Tensor, s_BHKV: Tensor
) -> tuple[Tensor, Tensor]:
    """S_t = a_t S_{t-1} + k_t v_t^T and o_t = S_t^T q_t, token by token. Returns (o_BTHV, last state)."""
    a_BTH, s, out = log_a_BTH.exp(), s_BHKV, []
    for t in range(q_BTHK.shape[1]):
        s = a_BTH[:, t, :, None, None] * s + torch.einsum("bhk,bhv->bhkv", k_BTHK[:, t], v_BTHV[:, t])
        out.append(torch.einsum("bhk,bhkv->bhv", q_BTHK[:, t], s))
    return torch.stack(out, dim=1), s


def decayed(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTH: Tensor, s_BHKV: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """The same function in chunks of ``chunk`` tokens; no exponent is ever above 0."""
    batch, length, heads, _ = k_BTHK.shape
    with torch.autocast(q_BTHK.device.type, enabled=False):
        if length == 1:
            write_BHKV = k_BTHK[:, 0, :, :, None] * v_BTHV[:, 0, :, None]
            s = torch.addcmul(write_BHKV, log_a_BTH[:, 0, :, None, None].exp(), s_BHKV)
            return (q_BTHK[:, 0, :, None] @ s).transpose(1, 2), s
        inside, q_start, k_end, v, start = _chunks(q_BTHK, k_BTHK, v_BTHV, log_a_BTH, min(chunk, length))
        s, states = s_BHKV.flatten(0, 1), []
        adds = torch.bmm(k_end.mT, v).unflatten(0, (batch * heads, -1)).unbind(1)
        keeps = start[:, -1, None].unflatten(0, (batch * heads, -1)).unbind(1)
        for add, keep in zip(adds, keeps, strict=True):
            states.append(s)
            s = torch.addcmul(add, keep, s)
        out = torch.baddbmm(inside, q_start, torch.stack(states, dim=1).flatten(0, 1))
    return join_chunks(out, batch, heads, length), s.view(s_BHKV.shape)


def _chunks(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_a_BTH: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Per chunk: the output from its own tokens, q decayed from its start, k to its end, v, the decays."""
    q, k, v, log_a = (split_chunks(x, chunk) for x in (q_BTHK, k_BTHK, v_BTHV, log_a_BTH))
    sums_CS, mask_S = span_sums(chunk, k)
    decay_NS = torch.addmm(mask_S, log_a, sums_CS).exp()
    start_NC1, decay_NCC = decay_NS[:, :chunk, None], decay_NS[:, chunk:].view(-1, chunk, chunk)
    inside = torch.bmm(torch.bmm(q, k.mT) * decay_NCC, v)
    return inside, q * start_NC1, k * decay_NCC[:, -1, :, None], v, start_NC1


def chunk_delta_reference(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_a_BTH: Tensor,
    b_BTH: Tensor,
    memory: Mapping[str, Tensor],
    position: int,
    chunk: int,
) -> tuple[Tensor, Memory]:
    """The rule as a recurrence over tokens; chunks count from position 0 of the whole sequence.

    Beside s, which is ``decayed``'s, it carries three things that only the next chunk will see, D and w_i
    being the decays from the chunk's start and from token i: base = D S_0, writes = sum w_i b_i k_i v_i^T,
    gram = sum w_i^2 b_i k_i k_i^T. At a chunk's end s = base = base + writes - K^-1/2 gram base.
    """
    a_BTH, out = log_a_BTH.exp(), []
    s, base, writes, gram = (memory[name] for name in ("s", "base", "writes", "gram"))
    for t in range(q_BTHK.shape[1]):
        a, k, v, b = a_BTH[:, t, :, None, None], k_BTHK[:, t], v_BTHV[:, t], b_BTH[:, t, :, None]
        s, base = a * s + torch.einsum("bhk,bhv->bhkv", k, v), a * base
        writes = a * writes + torch.einsum("bhk,bhv->bhkv", k, b * v)
        gram = a.square() * gram + torch.einsum("bhk,bhj->bhkj", k, b * k)
        out.append(torch.einsum("bhk,bhkv->bhv", q_BTHK[:, t], s))
        if (position + t + 1) % chunk == 0:
            read = torch.einsum("bhkj,bhjv->bhkv", gram, base) * k.shape[-1] ** -0.5
            s = base = base + writes - read
            writes, gram = torch.zeros_like(writes), torch.zeros_like(gram)
    return torch.stack(out, dim=1), {"s": s, "base": base, "writes": writes, "gram": gram}


def chunk_delta(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_a_BTH: Tensor,
    b_BTH: Tensor,
    memory: Mapping[str, Tensor],
    position: int,
    chunk: int,
) -> tuple[Tensor, Memory]:
    """The same function: what is left of a begun chunk, then whole chunks at once, then the rest."""
    length = q_BTHK.shape[1]
    if length == 1:
        return chunk_delta_reference(q_BTHK, k_BTHK, v_BTHV, log_a_BTH, b_BTH, memory, position, chunk)
    head = min(-position % chunk, length)
    whole = (length - head) // chunk * chunk
    sizes = [head, whole, length - head - whole]
    parts = [x.split(sizes, dim=1) for x in (q_BTHK, k_BTHK, v_BTHV, log_a_BTH, b_BTH)]
    out: list[Tensor] = []
    now = {name: memory[name] for name in ("s", "base", "writes", "gram")}
    with torch.autocast(q_BTHK.device.type, enabled=False):
        for i, size in enumerate(sizes):
            if size == 0:
                continue
            q, k, v, log_a, b = (part[i] for part in parts)
            if i == 1:
                o, now = _whole_chunks(q, k, v, log_a, b, now, chunk)
            else:
                o, now = _part_of_a_chunk(q, k, v, log_a, b, now)
                now = _turn(now) if (position + size) % chunk == 0 else now
            out.append(o)
            position += size
    return torch.cat(out, dim=1), now


def _turn(now: Memory) -> Memory:
    """The state that the next chunk starts from."""
    s = now["base"] + now["writes"] - now["gram"] @ now["base"] * now["gram"].shape[-1] ** -0.5
    return {
        "s": s,
        "base": s,
        "writes": torch.zeros_like(s),
        "gram": torch.zeros_like(now["gram"]),
    }


def _part_of_a_chunk(
    q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, now: Memory
) -> tuple[Tensor, Memory]:
    """Tokens that lie in one chunk: outputs by ``decayed``, the three sums carried on."""
    o, s = decayed(q, k, v, log_a, now["s"], chunk=q.shape[1])
    # Summed backwards, so that what a token loses is never the difference of two long sums.
    from_BHT = log_a.flip(1).cumsum(1).flip(1).transpose(1, 2)
    keep = from_BHT[:, :, 0, None, None].exp()
    after_BHT1 = F.pad(from_BHT[:, :, 1:], (0, 1)).exp()[..., None]
    k, v, b = k.transpose(1, 2) * after_BHT1, v.transpose(1, 2), b.transpose(1, 2)[..., None]
    return o, {
        "s": s,
        "base": keep * now["base"],
        "writes": keep * now["writes"] + k.mT @ (b * v),
        "gram": keep.square() * now["gram"] + k.mT @ (b * k),
    }


def _whole_chunks(
    q: Tensor, k: Tensor, v: Tensor, log_a: Tensor, b: Tensor, now: Memory, chunk: int
) -> tuple[Tensor, Memory]:
    """Whole chunks from a boundary, where s = base and nothing is pending: one affine map of s per chunk."""
    batch, length, heads, width = k.shape
    inside, q_start, k_end, v, start = _chunks(q, k, v, log_a, chunk)
    b_k = k_end * split_chunks(b, chunk)[..., None]
    adds, gram = torch.bmm(b_k.mT, v), torch.bmm(b_k.mT, k_end)
    carry = torch.eye(width, dtype=gram.dtype, device=gram.device) - gram * width**-0.5
    maps = (carry * start[:, -1, None]).unflatten(0, (batch * heads, -1)).unbind(1)
    s, states = now["s"].flatten(0, 1), []
    for carry, add in zip(maps, adds.unflatten(0, (batch * heads, -1)).unbind(1), strict=True):
        states.append(s)
        s = torch.baddbmm(add, carry, s)
    out = torch.baddbmm(inside, q_start, torch.stack(states, dim=1).flatten(0, 1))
    s = s.view(now["s"].shape)
    zero = torch.zeros_like
    now = {"s": s, "base": s, "writes": zero(s), "gram": zero(now["gram"])}
    return join_chunks(out, batch, heads, length), now
