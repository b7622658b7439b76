"""``lab blocks``, ``lab tasks``, ``lab sample``: whole registries, and drawn instances as they are."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from blocks import BLOCKS
from blocks.schedule import parse
from synthetics import TASKS
from synthetics.base import draw_text
from synthetics.difficulty import profile
from synthetics.protocol import parse_task
from synthetics.splits import draw


def test_blocks_lists_the_whole_registry_with_its_defaults(answer) -> None:
    listed = json.loads(answer("blocks", "--json"))
    assert [one["name"] for one in listed] == list(BLOCKS)
    page = answer("blocks")
    for one in listed:
        assert one["about"] and one["role"] in ("linear", "window", "full", "channel")
        pairs = [f"{option['name']}={option['default']!r}" for option in one["options"]]
        assert parse(f"{one['name']}({', '.join(pairs)})") == ((BLOCKS[one["name"]](),),)
        assert f"{one['name']}  ({one['role']})\n    {one['about']}\n" in page
        assert all(
            option["type"] and f"{option['name']}={option['default']}" in page for option in one["options"]
        )


def test_the_page_of_the_docs_is_what_the_registry_says_now(answer) -> None:
    """If this fails: lab blocks --markdown > docs/blocks.md."""
    root = Path(__file__).parents[2]
    page = answer("blocks", "--markdown")
    assert page == (root / "docs" / "blocks.md").read_text(encoding="utf-8")
    for name, cls in BLOCKS.items():
        section = page.split(f"## `{name}`\n")[1].split("\n## ")[0]
        assert all(f"| `{option.name}` |" in section for option in dataclasses.fields(cls))  # pyright: ignore
        # Who mixes tokens was seen to learn, or not to.
        assert ("*Soon*: " in section) == (cls().role != "channel")
    # What the reference sweep shows, by its own rows.
    assert page.count("*In the end*: ") == 6 and "*In the end*: copying, memorization" in page


def test_the_page_takes_blocks_of_ones_own(answer, workplace: Path) -> None:
    assert "## `average`" in answer("blocks", "--markdown", "--blocks", "my_blocks.py")


def test_tasks_lists_the_whole_registry_with_its_levels_and_ladders(answer) -> None:
    listed = json.loads(answer("tasks", "--json"))
    assert [one["name"] for one in listed] == list(TASKS)
    for one in listed:
        task = TASKS[one["name"]]()
        level = profile(task)
        assert (one["chance"], one["ceiling"], one["window_share"]) == (
            level.chance,
            level.ceiling,
            level.window_share,
        )
        assert {factor: tuple(values) for factor, values in one["ladder"].items()} == dict(task.LADDER)
        assert one["levels"] == task.LEVEL
        pairs = [f"{option['name']}={option['default']!r}" for option in one["options"]]
        assert parse_task(f"{one['name']}({', '.join(pairs)})") == task


def test_the_page_of_tasks_names_every_rung(answer) -> None:
    page = answer("tasks")
    for name, cls in TASKS.items():
        part = page[page.index(f"{name}\n    ") :]
        assert part.partition("    levels  ")[2].startswith(f"{cls.LEVEL}\n")
        for factor, values in cls.LADDER.items():
            assert f"ladder  {factor}: {', '.join(f'{value:g}' for value in values)}\n" in part


@pytest.mark.parametrize("name", list(TASKS))
def test_sample_prints_the_instances_of_the_split_as_the_docstrings_draw_them(name: str, answer) -> None:
    page = answer("sample", name, "-n", 3, "--seed", 5, "--split", "train")
    batch = draw(TASKS[name](), "train", 5, 3)
    assert page == "\n\n".join(draw_text(batch, row) for row in range(3)) + "\n"
    arrays = json.loads(answer("sample", name, "-n", 3, "--seed", 5, "--split", "train", "--json"))
    assert np.array_equal(arrays["inputs"], batch.inputs)
    assert np.array_equal(arrays["targets"], batch.targets)


def test_sample_writes_the_same_arrays_to_a_file(answer, tmp_path: Path) -> None:
    out = tmp_path / "some name.npz"
    said = answer("sample", "recall(vocab=32)", "-n", 7, "--out", out)
    assert str(out) in said and list(tmp_path.iterdir()) == [out]
    batch = draw(parse_task("recall(vocab=32)"), "test", 0, 7)
    with np.load(out) as arrays:
        assert np.array_equal(arrays["inputs"], batch.inputs)
        assert np.array_equal(arrays["targets"], batch.targets)
        assert str(arrays["task"]) == "recall(vocab=32)"
