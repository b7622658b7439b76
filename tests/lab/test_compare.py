"""``lab compare`` on a stored folder: sentence, table, JSON, and one sentence for bad input."""

import json
from pathlib import Path

import pytest

from sweeps.results import Pruned, write_pruned
from tests.analysis.factory import flat, make_folder, make_frame


def level(label: str, task: str, seed: int, _lr: float) -> list[float]:
    end = {"r=3": 0.62, "r=4": 0.6, "r=5": 0.4}[label]
    return flat(end + 0.01 * ((7 * seed + len(label + task) + int(label[2:]) * seed) % 5))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_folder(
        Path("runs/ratios"), make_frame(seeds=range(4), curve=level), "name: ratios\nmargin: 0.03\n"
    )


def test_a_pair_is_told_in_a_sentence_and_a_table(answer, folder) -> None:
    text = answer("compare", "ratios", "r=3", "r=5")
    assert text.startswith("r=3 is better than r=5 on the mean of 2 tasks by ")
    for part in (
        "recall",
        "copying",
        "all tasks",
        "d_z",
        "Bootstrap",
        "power of 80 %",
        "less state than r=3",
    ):
        assert part in text
    assert "named before its results were seen" in text and "within 3 points" in text
    assert (
        answer("compare", folder, "r=3", "r=5")
        == text
        == answer("compare", "ratios", "r=3", "r=5", "--runs", "runs")
    )


def test_json_holds_what_the_page_says(answer, folder) -> None:
    found = json.loads(answer("compare", "ratios", "r=3", "r=5", "--json"))
    assert answer("compare", "ratios", "r=3", "r=5").startswith(found["sentence"])
    assert found["labels"] == ["r=3", "r=5"] and found["margin"] == 0.03 and found["told_apart"] is True
    assert found["whole"]["difference"] == pytest.approx(found["whole"]["first"] - found["whole"]["second"])
    assert [line["task"] for line in found["tasks"]] == ["copying", "recall"]
    wide = json.loads(answer("compare", "ratios", "r=3", "r=5", "--margin", "0.5", "--json"))
    assert (found["within"], wide["within"]) == ([True, False], [True, True])


def test_one_seed_and_one_that_left_are_told(answer, tmp_path: Path) -> None:
    single = make_folder(tmp_path / "single", make_frame(seeds=(0,), curve=level))
    text = answer("compare", single, "r=3", "r=4")
    assert text.startswith("One seed gives no interval") and "one seed" in text
    gone = make_folder(tmp_path / "gone", make_frame(seeds=range(4), curve=level))
    write_pruned(gone, [Pruned("arch-r=5", "r=5", 3, 4, "r=3", 9, 9, 0.01)])
    assert "r=5 left the race after round 3 of 4" in answer("compare", gone, "r=3", "r=5")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ratios", "r=3", "r=33"), ("'r=33'", "did you mean 'r=3'", "r=5")),
        (("ratios", "r=3", "r=3"), ("r=3 is given twice", "r=4")),
        (("ratios", "r=3", "r=4", "--margin", "2"), ("--margin is 2", "from 0 to 1")),
        (("ratios", "r=3", "r=4", "--margin", "nan"), ("--margin is nan", "from 0 to 1")),
        (("ratios", "r=3"), ("argument 'B'", "--help")),
        (("nowhere", "r=3", "r=4"), ("nowhere", "no such folder")),
        (("empty", "r=3", "r=4"), ("no finished run", "at least one round")),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(words, said, lab, folder) -> None:
    make_folder(Path("runs/empty"), make_frame().clear())
    done = lab("compare", *words)
    assert done.code == 2 and done.out == "" and done.err.startswith("error: ")
    assert done.err.count("\n") == 1 and all(word in done.err for word in said), done.err
