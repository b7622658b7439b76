"""Bad input: exit code 2, one sentence that names what was given and what is allowed, nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = "name: window\npattern: w*attn\nsearch: {w: [1, 2]}\ntasks: [recall]\n"
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
BLOCK = """
from dataclasses import dataclass
@dataclass(frozen=True, kw_only=True)
class {name}:
    role = "linear"
    def build(self, shape, kernel="torch"): ...
    def params(self, shape): ...
    def state_size(self, shape, length): ...
    def flops(self, shape, length): ...
"""

FILES: dict[str, str | bytes] = {
    "good.yaml": RECIPE,
    "unknown_key.yaml": RECIPE + "seedz: 3\n",
    "wrong_type.yaml": RECIPE + "seeds: many\n",
    "bad_block.yaml": RECIPE.replace("attn", "atn"),
    "bad_task.yaml": RECIPE.replace("[recall]", "[recal]"),
    "bad_option.yaml": RECIPE.replace("[recall]", "['recall(vocap=32)']"),
    "bad_ratio.yaml": RECIPE.replace("[1, 2]", "[3:2]"),
    "no_grid.yaml": RECIPE.replace("[1, 2]", "[]"),
    "huge.yaml": RECIPE.replace("[1, 2]", str(list(range(1, 900)))).replace("recall", "mad") + "seeds: 900\n",
    "twice.yaml": RECIPE + "name: other\n",
    "code.yaml": "name: !!python/object/apply:os.system ['touch executed']\n",
    "bomb.yaml": BOMB,
    "garbage.yaml": bytes(range(256)),
    "empty.yaml": "",
    "list.yaml": "- 1\n",
    "broken.jsonl": '{"text": "x"}\n{"body": "x"}\n',
    "broken.parquet": "PAR1 and nothing else",
    "broken.txt.gz": "not packed",
    "broken.py": "def build(:\n",
    "raises.py": "import os\n\nraise RuntimeError('no')\n",
    "nothing.py": "x = 1\n",
    "attn.py": BLOCK.format(name="Attn"),
    "lacks.py": BLOCK.format(name="Mine").replace("params", "parameters"),
    "loose.py": BLOCK.format(name="Mine").replace("(frozen=True, kw_only=True)", ""),
    "binary.py": bytes(range(256)),
    "listed.py": "BLOCKS = [1]\n",
    "notours/notes.txt": "mine",
    "window/notes.txt": "mine",
    "newer/env.json": json.dumps(
        {"kind": "run folder of the hybrid-architecture lab", "schema_version": 999}
    ),
    "other/env.json": "{}",
    "done/env.json": json.dumps({"kind": "run folder of the hybrid-architecture lab", "schema_version": 1}),
}

# command line -> what the sentence has to name: what was given, then what is allowed or what to do
CASES: dict[str, tuple[str, ...]] = {
    "swep": ("swep", "--help"),
    "describe": ("schedule", "--help"),
    "worker queue.log window": ("queue.log", "no such journal", "lab sweep RECIPE --storage"),
    "status window --storage queue.log": ("queue.log", "no such journal"),
    "worker sqlite:///x.db window": ("SQLite", "journal file", "postgresql+psycopg://"),
    "worker nosuch://x window": ("nosuch://x", "journal file"),
    "worker no/queue.log window": ("no/queue.log", "no is not there"),
    "status window": ("window", "no run folder of the lab"),
    "status nowhere": ("nowhere", "no such folder"),
    "describe gdn --nope 3": ("--nope", "--help"),
    "describe gdn --dim wide": ("--dim", "'wide'", "integer"),
    "describe gdn --dim 0": ("dim is 0", "at least 1"),
    "describe swiglu(expand=1e308)": ("expand is 1e+308", "lower it"),
    "describe gdn(expand_k=1e308)": ("expand_k=1e+308", "choose"),
    "describe attn --dim 10 --heads 4": ("10", "4 heads"),
    "describe gdn --length 0": ("--length", "'0'", "1"),
    "describe gnd": ("gnd", "did you mean 'gdn'", "fox"),
    "describe attn(windw=3)": ("windw", "did you mean 'window'"),
    "describe attn(window='x')": ("window is 'x'", "whole number"),
    "describe 3*": ("3*", "parse"),
    "describe r*gdn": ("'r'", "attn"),
    "describe r*gdn --var r": ("'r'", "NAME=VALUE"),
    "describe r*gdn --var r=3:2": ("3:2", "n:1"),
    "describe r*gdn --var r=2 --var r=3": ("r", "twice"),
    "describe gdn --depth 0": ("0", "between 1"),
    "describe gdn --blocks none.py": ("none.py",),
    "describe gdn --blocks .": (".", "directory"),
    "describe gdn --blocks broken.py": ("broken.py:1", "not Python"),
    "describe gdn --blocks binary.py": ("binary.py", "not Python"),
    "describe gdn --blocks raises.py": ("raises.py:3", "RuntimeError: no"),
    "describe gdn --blocks nothing.py": ("nothing.py", "@dataclass"),
    "describe gdn --blocks attn.py": ("attn.py", "'attn'", "built-in"),
    "describe gdn --blocks lacks.py": ("mine", "params"),
    "describe gdn --blocks loose.py": ("mine", "frozen=True"),
    "describe gdn --blocks listed.py": ("BLOCKS", "list", "dict"),
    "mup gdn --widths 64": ("--widths", "'64'", "64,128,256"),
    "mup gdn --widths 64,72": ("72", "--head, 16"),
    "mup gdn --base 40": ("--base", "40", "--head, 16"),
    "mup gdn --lr 0": ("--lr is 0", "above 0"),
    "mup gdn --figure x.pdf": ("x.pdf", ".svg, .png or .html"),
    "mup gnd": ("gnd", "did you mean 'gdn'"),
    "score gdn": ("--task", "--help"),
    "score gdn --task recal": ("recal", "did you mean 'recall'"),
    "score gdn --task recall --steps 0": ("steps is 0", "at least 1"),
    "score gdn --task recall --lr -1": ("lr is -1", "above 0"),
    "sample nope": ("nope", "recall"),
    "sample recall(vocap=3)": ("vocap", "did you mean 'vocab'"),
    "sample recall(vocab=x)": ("vocab", "number"),
    "sample recall -n 0": ("-n", "'0'", "1"),
    "sample recall --split exam": ("'exam'", "'train'", "'test'"),
    "sample recall --out .": ("directory",),
    "sample recall --out none/x.npz": ("none",),
    "sample recall --out x.txt": ("x.txt", ".npz"),
    "validate nowhere.yaml": ("nowhere.yaml", "smoke"),
    "validate smok": ("smok", "did you mean 'smoke'"),
    "validate window": ("window", "directory"),
    "validate garbage.yaml": ("garbage.yaml",),
    "validate empty.yaml": ("empty.yaml", "empty"),
    "validate list.yaml": ("list.yaml", "mapping"),
    "validate bomb.yaml": ("bomb.yaml",),
    "validate code.yaml": ("code.yaml:1",),
    "validate twice.yaml": ("twice.yaml:5", "name"),
    "validate unknown_key.yaml": ("unknown_key.yaml:5", "seedz", "did you mean 'seeds'"),
    "validate wrong_type.yaml": ("wrong_type.yaml:5", "'many'", "whole number"),
    "validate bad_block.yaml": ("bad_block.yaml:2", "atn", "attn"),
    "validate bad_task.yaml": ("bad_task.yaml:4", "recal", "did you mean 'recall'"),
    "validate bad_option.yaml": ("bad_option.yaml:4", "vocap", "did you mean 'vocab'"),
    "validate bad_ratio.yaml": ("bad_ratio.yaml:3", "3:2", "n:1"),
    "validate no_grid.yaml": ("no_grid.yaml:3", "empty"),
    "validate huge.yaml": ("huge.yaml", "at most"),
    "validate good.yaml --set seeds": ("seeds", "key=value"),
    "validate good.yaml --set seeds=x": ("seeds", "'x'", "whole number"),
    "validate good.yaml --set sedes=1": ("sedes", "did you mean 'seeds'"),
    "plan nowhere.yaml": ("nowhere.yaml", "smoke"),
    "plan good.yaml --workers 0": ("--workers", "'0'", "1"),
    "sweep nowhere.yaml": ("nowhere.yaml", "smoke"),
    "sweep bad_block.yaml": ("bad_block.yaml:2", "atn", "attn"),
    "sweep good.yaml --time 15": ("'15'", "15m"),
    "sweep good.yaml --workers 0": ("--workers is 0", "1 is needed", "--storage"),
    "sweep good.yaml --workers -1": ("--workers", "-1", "0"),
    "sweep good.yaml --storage sqlite:///x.db": ("SQLite", "journal file"),
    "sweep good.yaml --runs .": ("window", "no run folder", "--runs"),
    "sweep good.yaml --runs good.yaml": ("good.yaml",),
    "report nowhere": ("nowhere", "no such folder"),
    "report good.yaml": ("good.yaml", "run folder"),
    "report notours": ("notours", "env.json"),
    "report other": ("other", "env.json"),
    "report newer": ("newer", "newer version", "999"),
    "report done --figures figs --format pdf": ("--format is 'pdf'", "svg or png"),
    "report done done": ("done and done are the same run folder", "give two"),
    "report done a b": ("3 run folders are given", "two are compared"),
    "report done --figures good.yaml": ("good.yaml", "folder"),
    "report done --figures none/figs": ("none/figs", "folder"),
    "dashboard nowhere": ("nowhere", "no such folder"),
    "dashboard notours": ("notours", "env.json"),
    "dashboard newer": ("newer", "newer version", "999"),
    "dashboard window --port 65536": ("--port", "'65536'", "65535"),
    "bench --only blocs": ("--only is 'blocs'", "blocks", "startup"),
    "bench --repeats 0": ("--repeats", "'0'", "1"),
    "data prepare none.txt --out x": ("no file none.txt", "hf:NAME"),
    "data prepare list.yaml": ("--out", "--help"),
    "data prepare list.yaml --out notours": ("notours", "notes.txt", "empty folder"),
    "data prepare list.yaml --out list.yaml": ("list.yaml is a file", "folder"),
    "data prepare list.yaml --out x --valid 1": ("--valid is 1", "below 1"),
    "data prepare list.yaml --out x --tokenizer none.json": ("none.json", "bytes", "lab data tokenizer"),
    "data prepare list.yaml --out x --tokenizer good.yaml": ("good.yaml is no tokenizer.json",),
    "data prepare list.yaml --out x --chat": ("list.yaml", "JSONL or parquet"),
    "data prepare corpus --out x --chat": ("corpus", "no conversations"),
    "data prepare hf: --out x": ("hf:NAME",),
    "data prepare empty.yaml --out x": ("empty.yaml", "no document with text"),
    "data prepare binary.py --out x": ("binary.py", "UTF-8", "--allow-bad"),
    "data prepare broken.jsonl --out x": ("broken.jsonl:2", "no key text", "it has body", "--field"),
    "data prepare broken.parquet --out x": ("broken.parquet cannot be read as parquet",),
    "data prepare broken.txt.gz --out x": ("broken.txt.gz cannot be unpacked",),
    "data tokenizer list.yaml --out x --vocab 100": ("--vocab is 100", "259"),
    "data tokenizer list.yaml --out good.yaml": ("good.yaml is there already",),
    "data tokenizer list.yaml --out none/x.json": ("none/x.json", "no folder"),
    "data show nowhere": ("no folder nowhere", "lab data prepare"),
    "data show notours": ("notours", "manifest.json", "lab data prepare"),
    "data show notours --split test": ("--split is 'test'", "train or valid"),
    "eval none.safetensors": ("none.safetensors", "there is no such file"),
    "eval garbage.yaml": ("garbage.yaml", "safetensors"),
    "export none": ("none", "no such file", "run folder"),
    "export garbage.yaml": ("garbage.yaml", "safetensors"),
    "chat none": ("none", "no such file", "run folder"),
    "train": ("SPEC", "--help"),
    "train nowhere.yaml": ("nowhere.yaml", "no such file", "no shipped specification"),
    "train smok": ("smok", "did you mean 'smoke'"),
    "train window": ("window", "directory"),
    "train good.yaml": ("good.yaml", "kind"),
    "train smoke --peak 0": ("--peak", "0"),
    "train smoke --set train.lr=1": ("lr",),
    "transfer run": ("STUDY", "--help"),
    "transfer run transfr": ("transfr", "did you mean 'transfer'"),
    "transfer run good.yaml": ("good.yaml", "kind is none", "kind: transfer"),
    "transfer run transfer --time 110": ("'110'", "15m"),
    "transfer run transfer --out notours": ("notours", "give another --out"),
    "transfer show transfer --html none/x.html": ("none/x.html", "folder"),
    "transfer show transfer --verdict none.parquet": ("none.parquet", "no such file"),
    "transfer show transfer --figures none/figs": ("none/figs", "folder"),
    "transfer show transfer --figures figs --format pdf": ("--format is 'pdf'", "svg or png"),
    "transfer shwo": ("no such command 'shwo'", "'show'"),
    "transfer pack transfer x.parquet --out none --set lr=0.5": (
        "x.parquet",
        "no row",
        "let the study finish one",
    ),
    "transfer pack transfer none/x.parquet": ("none/x.parquet", "in a folder that exists"),
    "doctor --blocks none.py": ("none.py",),
    "blocks --blocks nothing.py": ("nothing.py", "@dataclass"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("line", list(CASES))
def test_bad_input_is_one_sentence_and_exit_code_2(line: str, lab, place: Path) -> None:
    before = snapshot(place)
    outcome = lab(*line.split())
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ") and outcome.err.count("error:") == 1
    assert "Traceback" not in outcome.err
    for word in CASES[line]:
        assert word in outcome.err, outcome.err
    assert snapshot(place) == before, "nothing is written"


def test_options_with_spaces_are_read_whole(lab, place: Path) -> None:
    outcome = lab("describe", "3*(gdn, swiglu) + (fxo, swiglu)")
    assert outcome.code == 2
    message, shown, caret = outcome.err.splitlines()
    assert "did you mean 'fox'" in message and shown[caret.index("^") :].startswith("fxo")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_one_sentence(lab, place: Path) -> None:
    (place / "good.yaml").chmod(0)
    outcome = lab("validate", "good.yaml")
    assert outcome.code == 2 and "good.yaml" in outcome.err


def test_a_full_disk_is_one_sentence_and_nothing_half_written(lab, place: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (place / "out").mkdir()
    program = "import sys; from lab.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, "blocks"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "No space left" in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_reader_that_has_left_ends_a_command_quietly() -> None:
    program = "from lab.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "blocks"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    _, said = process.communicate(timeout=300)
    assert (process.returncode, said) == (1, "")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, lab) -> None:
    import lab.terminal as terminal

    def broken(*_: object) -> None:
        raise ValueError("not a bad input but a bug")

    monkeypatch.setattr(terminal, "variables", broken)
    monkeypatch.setattr("lab.describe.variables", broken)
    with pytest.raises(ValueError, match="a bug"):
        lab("describe", "attn")


@pytest.mark.parametrize(
    "said",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("no memory for it"),
    ],
)
def test_too_little_memory_is_one_sentence(lab, said: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise said

    monkeypatch.setattr("lab.cli.app", fail)
    done = lab("tasks")
    assert done.code == 2 and "more memory than there is" in done.err and done.err.count("\n") == 1
