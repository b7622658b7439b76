"""Tokens one after another, whatever the model: how the next is chosen, read on, and told as text."""
