"""DeltaNet: the delta rule without decay, what is written under a key replaces what it held.

H heads, K key width, V value width. The recurrence and its forms are those of ``blocks.gdn`` at a decay of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from blocks.gdn import GDN

__all__ = ["DeltaNet"]


@dataclass(frozen=True, kw_only=True)
class DeltaNet(GDN):
    """DeltaNet (Yang et al. 2024b, eq. 1 and section 3.4). Linear in T; state H*K*V and the conv's tail.

    S_t = S_{t-1} + b_t (v_t - S_{t-1} k_t) k_t^T, o_t = S_t q_t: nothing is forgotten but what is written
    over. q and k from a short convolution, SiLU and L2 normalisation (q times K^-1/2), v from the convolution
    and SiLU; b = beta_max sigmoid(W x).

    expand_k, expand_v: widths of all keys and of all values over D. conv: taps of the short convolution, 0
    for none. beta_max: the largest write strength; above 1 the memory can flip the sign of what it holds
    (Grazzi et al. 2025), which tracking of state needs. gate: multiply the output by silu(W x), which the
    paper does not. norm: RMSNorm of each head's output. exclusive: as for ``gdn``.
    """

    word: ClassVar[str] = "deltanet"
    decay: ClassVar[bool] = False

    expand_k: float = 1.0
    expand_v: float = 1.0
    gate: bool = False
