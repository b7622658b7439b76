"""What full-size models learn from: text -> token shards -> rows, found by arithmetic from (seed, step)."""
