"""Which options of each block the contract tries beside the defaults, as one would write them in a schedule.

A block without a row is tried with its defaults alone.
"""

VARIANTS: dict[str, list[str]] = {
    "attn": [
        "attn(kv_heads=2, rope=0.5, qk_norm=True)",
        "attn(rope=0)",
        "attn(window=1)",
        "attn(window=5, kv_heads=1)",
        "attn(window=64, base=500)",
        "attn(kv_heads=2, rope=0.25, qk_gain=1.5, exclusive=True)",
    ],
    "gated_attn": [
        "gated_attn(gate='headwise', kv_heads=2, rope=1)",
        "gated_attn(window=5, rope=0, qk_norm=False, exclusive=True)",
    ],
    "fox": [
        "fox(kv_heads=2, forget_bias=3)",
        "fox(output_gate='sigmoid', output_norm=True, qk_norm=True, conv=4, exclusive=True)",
        "fox(output_gate='silu', conv=1)",
        "fox(kv_heads=2, exclusive=True)",
    ],
    "gdn": [
        "gdn(conv=0, gate=False, norm=False, beta_max=2)",
        "gdn(expand_k=1, expand_v=1, conv=1)",
        "gdn(exclusive=True)",
    ],
    "deltanet": [
        "deltanet(conv=0, gate=True, beta_max=2, exclusive=True)",
        "deltanet(expand_k=0.5, expand_v=2, conv=1, norm=False)",
    ],
    "kda": [
        "kda(conv=0, gate=False, beta_max=2, exclusive=True)",
        "kda(expand_k=0.5, expand_v=2, conv=1, rank=3, norm=False)",
    ],
    "rwkv7": ["rwkv7(rank=3, exclusive=True)"],
    "retnet": ["retnet(expand_k=0.5, exclusive=True)", "retnet(expand_k=0.75, expand_v=1, base=100)"],
    "gla": ["gla(conv=4, gate=False, norm=False, exclusive=True)", "gla(expand_k=1, expand_v=2, rank=3)"],
    "linear": [
        "linear(exclusive=True)",
        "linear(normalise=False)",
        "linear(feature='identity', normalise=False)",
    ],
    "mamba": ["mamba(d_state=3, dt_rank=2, conv=0)", "mamba(expand=1.5, conv=1)"],
    "mamba2": [
        "mamba2(d_state=5, groups=2, conv=0, exclusive=True)",
        "mamba2(expand=1, d_state=16, groups=2, conv=1)",
    ],
    "hyena": ["hyena(order=3, conv=0, bands=2, hidden=6, max_length=40)", "hyena(conv=1, max_length=128)"],
    "mh_hyena": ["mh_hyena(conv=0, bands=1, hidden=5, max_length=100, exclusive=True)", "mh_hyena(conv=4)"],
    "ttt": ["ttt(mini_batch=5, conv=0, gate=False)", "ttt(mini_batch=1)", "ttt(mini_batch=64, lr=0.5)"],
    "genesis_gla": [
        "genesis_gla(kv_heads=2, exclusive=True)",
        "genesis_gla(rule='decay', kv_heads=2)",
        "genesis_gla(rule='chunk_delta', kv_heads=2)",
        "genesis_gla(rule='chunk_delta', chunk=5, conv=1)",
    ],
    "genesis_fox": ["genesis_fox(kv_heads=2, exclusive=True)", "genesis_fox(kv_heads=1, conv=1)"],
    "swiglu": ["swiglu(expand=1)"],
    "mlp": [
        "mlp(act='relu')",
        "mlp(act='relu2', expand=1.5)",
        "mlp(act='relu2', slope=0.5)",
        "mlp(act='relu', slope=0.1)",
        "mlp(act='silu')",
    ],
    "moe": ["moe(experts=3, active=1, expand=0.5)", "moe(experts=2, active=2)"],
    "sparse": [
        "sparse(k_ratio=0.85)",
        "sparse(expand=2, k_ratio=1)",
        "sparse(k_ratio=0.01)",
        "sparse(mask='soft')",
        "sparse(expand=2, k_ratio=0.3, block=2)",
    ],
}
