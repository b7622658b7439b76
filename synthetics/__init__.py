"""Synthetic tasks: how an instance is drawn, and how a model is trained and scored on one."""
