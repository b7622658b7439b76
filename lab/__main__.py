"""``python -m lab``, as torchrun starts it."""

from lab.cli import main

main()
