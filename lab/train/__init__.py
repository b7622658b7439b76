"""Training at full size: one specification, one process or many, one folder that says all of it."""
