"""``lab bench``: the lab's speed in pairs, ours beside a reference and a floor, one module per group."""
