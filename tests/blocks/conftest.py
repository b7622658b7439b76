"""The contract's parameters: every block of the registry, and of a user's file given with --blocks FILE.

What holds of a block holds of every kernel that computes it.
"""

from collections.abc import Mapping

import pytest

from blocks import BLOCKS
from blocks.base import Block
from blocks.kernels.native import compiler
from blocks.user import load_blocks
from tests.blocks.harness import cases

NEEDS_COMPILER = pytest.mark.skipif(compiler() is None, reason="no C compiler here: apt install gcc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--blocks", metavar="FILE", help="hold the blocks that this Python file defines as well")


def _known(config: pytest.Config) -> Mapping[str, type[Block]]:
    file = config.getoption("--blocks", default=None)
    return BLOCKS | load_blocks(file) if file else BLOCKS


@pytest.fixture(scope="session")
def known(request: pytest.FixtureRequest) -> Mapping[str, type[Block]]:
    """The registry under test."""
    return _known(request.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "block_text" in metafunc.fixturenames:
        known = _known(metafunc.config)
        metafunc.parametrize(
            "block_text",
            # A block as it comes is held at once, with its other options in the second part of the tests.
            [text if text in known else pytest.param(text, marks=pytest.mark.slow) for text in cases(known)],
        )
    if "kernel" in metafunc.fixturenames:
        metafunc.parametrize("kernel", ["torch", pytest.param("c", marks=NEEDS_COMPILER)])
