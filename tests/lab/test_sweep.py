"""``lab validate``, ``plan``, ``sweep``, ``report`` on a small real recipe, from question to page."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.sweep import seconds_of
from lab.terminal import CommandError
from sweeps.recipe import shipped
from sweeps.results import read, read_run
from tests.browser import chromium

CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SMALL = ("--set", "train.steps=4", "--set", "train.eval_every=2", "--set", "train.eval_examples=8")


def test_validate_counts_what_a_sweep_trains(answer, workplace: Path) -> None:
    found = json.loads(answer("validate", "window.yaml", "--json"))
    assert found == {
        "valid": True,
        "name": "window",
        "file": "window.yaml",
        "candidates": 2,
        "space": 2,
        "sampled": False,
        "tasks": ["recall(length=32)"],
        "optimiser_settings": 1,
        "rounds": 2,
        "runs": 4,
    }
    assert "2 candidates x 1 task setting x 1 optimiser setting x 2 seeds = 4 runs" in answer(
        "validate", "window.yaml"
    )
    found = json.loads(answer("validate", "window.yaml", "--set", "train.lr=[1e-3, 2e-3]", "--json"))
    assert (found["optimiser_settings"], found["runs"]) == (2, 8)


def test_a_sampled_recipe_is_counted_by_its_trials(answer, workplace: Path) -> None:
    words = ("window.yaml", "--set", "search.w=[2, 3, 4, 5, 6]", "--set", "trials=3")
    found = json.loads(answer("validate", *words, "--json"))
    assert (found["sampled"], found["candidates"], found["space"], found["runs"]) == (True, 3, 5, 6)
    assert "3 candidates chosen by Optuna out of 5" in answer("plan", *words)


FAIR = (
    "window.yaml",
    "--set=match={state: baseline, by: dim, within: 0.1}",
    "--set=baseline=w=16",
    "--set=search.w=[4, 8, 16]",
)


def test_plan_and_validate_show_what_was_made_equal(answer, lab, workplace: Path) -> None:
    for command in ("plan", "validate"):
        text, found = answer(command, *FAIR), json.loads(answer(command, *FAIR, "--json"))
        assert "Matched to 1,472, state:" in text
        assert [row["solved"]["by"] for row in found["rows"]] == ["dim", "dim", ""]
        for row in found["rows"]:
            assert abs(row["solved"]["now"] - row["solved"]["target"]) <= 0.1 * row["solved"]["target"]
    refused = lab("validate", *FAIR, "--set", "match.within=0.001")
    assert refused.code == 2 and refused.err.count("\n") <= 2
    assert "the nearest is" in refused.err and "w=4" in refused.err


def test_what_breaks_a_constraint_is_named_and_not_trained(lab, workplace: Path) -> None:
    words = ("window.yaml", *SMALL, "--set", "constraints={state: <= 1200}", "--set", "seeds=1")
    said = "w=16: its state is 1,472, not <= 1200 (1,200)"
    planned = lab("plan", *words)
    assert planned.code == 0 and f"Not trained (1):\n  {said}" in planned.out
    swept = lab("sweep", *words, "--workers", 1)
    assert swept.code == 0 and f"Not trained (1):\n  {said}" in swept.err
    assert read(Path("runs/window")).frame["label"].unique().to_list() == ["w=4"]
    none = lab("sweep", *words, "--set", "constraints.state=<= 1")
    assert none.code == 2 and "leave no candidate to train" in none.err


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_recipe_is_valid(name: str, answer) -> None:
    found = json.loads(answer("validate", name, "--json"))
    assert found["name"] == name and found["runs"] > 0


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where one small sweep was run, and what it printed."""
    place = tmp_path_factory.mktemp("swept")
    recipe = re.search(r"^```yaml window.yaml\n(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL)
    assert recipe
    (place / "window.yaml").write_text(recipe[1], encoding="utf-8")
    words = ["sweep", "window.yaml", *SMALL, "--workers", "1", "--json"]
    command = [sys.executable, "-c", "from lab.cli import main; main()", *words]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True, timeout=300)
    return place, done.stdout


def test_plan_states_the_costs_that_the_results_hold(answer, swept, monkeypatch) -> None:
    monkeypatch.chdir(swept[0])
    plan = json.loads(answer("plan", "window.yaml", *SMALL, "--workers", 2, "--json"))
    assert plan["runs"] == 4 and plan["workers"] == 2
    assert 0 < plan["seconds_per_round"] <= plan["seconds"] == pytest.approx(2 * plan["seconds_per_round"])
    keys = ("label", "schedule", "params", "flops", "state", "n_full", "n_window", "n_linear")
    frame = read(Path("runs/window")).frame.filter("final")
    stored = {tuple(row[key] for key in keys) for row in frame.iter_rows(named=True)}
    assert stored == {tuple(row[key] for key in keys) for row in plan["rows"]}


def test_a_report_is_made_from_the_folder_alone(answer, swept, monkeypatch) -> None:
    monkeypatch.chdir(swept[0])
    before = json.loads(swept[1])
    for words in (("runs/window",), ("window",), ("window", "--runs", "runs")):
        found = json.loads(answer("report", *words, "--out", "page.html", "--json"))
        same = {name: before[name] for name in ("sentence", "ranking")}
        # One variable has nothing beside it, and the score is weighed against nothing.
        made = {"effects": None, "front": "", "report": "page.html", "rows": "page.rows.parquet"}
        assert found == {**same, **made}
        first = Path("runs/window/report.html").read_text()
        assert Path("page.html").read_text() == first.replace("report.rows.parquet", "page.rows.parquet")
    page = answer("report", "runs/window")
    assert before["sentence"] in page
    for row in before["ranking"]["rows"]:
        assert row["label"] in page


def test_the_figures_of_a_report_are_files(answer, swept, tmp_path: Path, monkeypatch) -> None:
    chromium()
    monkeypatch.chdir(swept[0])
    words = ("report", "window", "--out", tmp_path / "page.html", "--figures", tmp_path / "figures")
    found = json.loads(answer(*words, "--json"))["figures"]
    assert {Path(name) for name in found} == set((tmp_path / "figures").iterdir())
    assert {Path(name).stem for name in found} >= {"heatmap", "front-state", "front-flops", "curve-recall"}
    assert all(Path(name).read_text(encoding="utf-8").startswith("<svg") for name in found)


def test_a_folder_is_packed_in_one_file(lab, answer, swept, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(swept[0])
    file = tmp_path / "window.parquet"
    found = json.loads(answer("pack", "window", file, "--json"))
    assert found == {"file": str(file), "runs": 4, "bytes": file.stat().st_size}
    assert f"{file}: 4 runs" in answer("pack", "runs/window", file)
    assert set(read_run(file)["run"]) == set(read(Path("runs/window")).frame["run"])
    (tmp_path / "text.parquet").write_text("no parquet")
    for words in (
        ("nowhere", file),
        ("window", tmp_path / "text.parquet"),
        ("window", tmp_path / "no" / "x"),
    ):
        refused = lab("pack", *words)
        assert refused.code == 2 and refused.err.startswith("error: ") and refused.err.count("\n") == 1
    assert (tmp_path / "text.parquet").read_text() == "no parquet"


def test_a_sweep_answers_reports_and_goes_on(lab, workplace: Path) -> None:
    first = lab("sweep", "window.yaml", *SMALL, "--set", "seeds=1", "--workers", 1)
    assert first.code == 0, first.err
    assert "After round 1 of 1" in first.out and "one seed" in first.out
    assert "2 runs trained, 0 found finished" in first.out
    page = Path("runs/window/report.html")
    assert first.out.endswith(f"report: {page}\n") and page.stat().st_size > 1_000_000
    second = lab("sweep", "window.yaml", *SMALL, "--workers", 1)
    assert "2 runs trained, 2 found finished" in second.out and "2 seeds" in second.out
    third = lab("sweep", "window.yaml", *SMALL, "--json")
    found = json.loads(third.out)
    assert (found["sweep"]["trained"], found["sweep"]["stored"]) == (0, 4)
    assert found["report"] == str(page)
    assert sorted(row["label"] for row in found["ranking"]["rows"]) == ["w=16", "w=4"]
    assert found["sentence"] in second.out
    assert all(len(line) < 200 for line in third.err.splitlines())


def test_who_leaves_the_race_is_said_when_it_happens_and_in_the_answer(lab, workplace: Path) -> None:
    train = "train={steps: 20, batch: 8, eval_every: 10, eval_examples: 32, lr: {w: {4: 2e-2, 16: 1e-9}}}"
    asked = ('tasks=["memorization(vocab=16, length=16)"]', train, "score=auc", "seeds=4", "pruning=0.3")
    words = ("sweep", "window.yaml", "--workers", 1, *(word for one in asked for word in ("--set", one)))
    done = lab(*words)
    line = "w=16 leaves after round 2: behind w=4 in 2 of 2 comparisons (Wilcoxon, p below 0.3)"
    assert line in done.err.splitlines()
    assert "w=16 after 2 of 4 rounds left the race, by Wilcoxon's test at p 0.3" in done.out
    assert "left after round 2" in done.out
    assert "complete (w=4 alone is left after round 2 of 4): 4 runs trained, 0 found finished" in done.out
    found = json.loads(lab(*words, "--json").out)
    assert (found["sweep"]["stopped"], found["sweep"]["trained"]) == ("decided", 0)
    gone = next(row for row in found["ranking"]["rows"] if row["label"] == "w=16")
    assert (gone["left"]["round"], gone["left"]["leader"]) == (2, "w=4")


def test_blocks_of_ones_own_are_swept_in_every_worker(answer, workplace: Path) -> None:
    own = ("--set", "search.w=[4]", "--set", "pattern=(average, swiglu) + attn(window=w)")
    words = ("window.yaml", *own, *SMALL, "--blocks", "my_blocks.py")
    assert json.loads(answer("validate", *words, "--json"))["candidates"] == 1
    found = json.loads(answer("sweep", *words, "--workers", 2, "--json"))
    assert found["sweep"]["trained"] == 2 and not found["sweep"]["failures"]
    assert read(Path("runs/window")).frame["schedule"][0] == "(average, swiglu) + attn(window=4)"


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(answer, workplace: Path) -> None:
    words = ["sweep", "window.yaml", "--set", "train.steps=150", "--set", "seeds=40", "--workers", "1"]
    command = [sys.executable, "-c", "from lab.cli import main; main()", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    trials = Path("runs/window/trials")
    deadline = time.monotonic() + 600
    while len(list(trials.glob("*.parquet"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    kept = len(list(trials.glob("*.parquet")))
    assert 3 <= kept < 80
    last = err.splitlines()[-1]
    assert last == f"stopped: {kept} of 80 runs are kept in runs/window; the same command goes on from there"
    assert "Traceback" not in err
    words[4:6] = ["--set", "seeds=1"]  # the first round is complete: nothing is left to train
    found = json.loads(answer(*words, "--set", "train.steps=150", "--json"))
    assert (found["sweep"]["trained"], found["sweep"]["stored"]) == (0, 2)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1m5s", 65)]
)
def test_times_are_written_with_units(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["15", "", "0m", "m", "1.5h", "30m1h", "-5m", "soon"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(CommandError, match="write it as 90s, 15m"):
        seconds_of(text)


@pytest.mark.slow
def test_the_smoke_recipe_runs_whole_as_it_is_shipped(answer, workplace: Path) -> None:
    found = json.loads(answer("sweep", "smoke", "--json"))
    assert found["sweep"]["stopped"] == "complete"
    assert (found["sweep"]["trained"], found["sweep"]["rounds"]) == (8, 2)
    assert {row["label"] for row in found["ranking"]["rows"]} == {"r=1:1", "r=2:1"}
    assert Path(found["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
