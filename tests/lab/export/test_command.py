"""``lab export``: one file that every command reads, within its budget or not at all; a folder for others."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models

from lab.data.bpe import train_bpe
from lab.data.chatml import encode_batch, turns_of
from lab.data.tokens import END, open_tokenizer
from lab.export.budget import Budget, bytes_of, code_of
from lab.export.huggingface import write_folder
from lab.model.packed import is_packed
from lab.model.spec import build, loads, read_model, tokenizer_of, write_model
from lab.terminal import CommandError
from tests.lab.model.test_packed import TEXT

ROOT = Path(__file__).parents[3]
SPEC = loads(TEXT, overrides=["model.mup=8"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with a model; its file is the current folder's, too."""
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    write_model(build(SPEC), SPEC, tmp_path / "run" / "model.safetensors")
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 8, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_whole_it_is_the_model_under_its_own_name(lab, folder: Path) -> None:
    assert lab("export", folder).code == 0
    ours, theirs = (read_model(folder / f"{name}.safetensors")[0] for name in ("model", "tiny"))
    for name, one in ours.state_dict().items():
        assert torch.equal(one, theirs.state_dict()[name])
    again = lab("export", folder)
    assert again.code == 2 and "tiny.safetensors is there already" in again.err


def test_rounded_it_is_read_by_the_others_and_the_scores_are_theirs(lab, answer, folder: Path) -> None:
    words = ("--text", "text.txt", "--stride", 8, "--json")
    found = json.loads(answer("export", folder, "--int6", "--budget", "2MB", *words))
    path = folder / "tiny.int6.safetensors.zst"
    assert found["file"] == str(path) and found["bytes"] == path.stat().st_size and is_packed(path)
    budget = found["budget"]
    assert budget["weights"] == found["bytes"] and budget["code"] == sum(code_of().values())
    assert budget["left"] == 2_000_000 - budget["weights"] - budget["code"]
    (scored,) = found["texts"]
    for key, file in (("before", folder / "model.safetensors"), ("after", path)):
        (one,) = json.loads(answer("eval", file, *words))["texts"]
        assert one["bits_per_byte"] == scored[key]
    assert scored["before"] != scored["after"] == pytest.approx(scored["before"], abs=0.05)
    assert lab("generate", path, "--steps", 3).code == 0
    page = answer("export", folder, "--int8", "--text", "text.txt")
    assert "embedding and head" in page and "bits per byte" in page


def test_over_its_budget_nothing_is_written(lab, folder: Path) -> None:
    before = sorted(folder.iterdir())
    outcome = lab("export", folder, "--int6", "--budget", "20kB", "--no-score")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "--budget is 20,000 bytes" in outcome.err and "over, so nothing is written" in outcome.err
    assert sorted(folder.iterdir()) == before


def test_a_budget_is_decimal_and_counts_the_code_that_trains_and_evaluates() -> None:
    assert bytes_of("16MB") == 16_000_000 == bytes_of("16_000_000")
    assert bytes_of("1.5 MiB") == 3 * 2**19
    with pytest.raises(CommandError, match="16 parsecs"):
        bytes_of("16 parsecs")
    code = code_of()
    wanted = {"blocks/model.py", "blocks/kernels/rows.h", "lab/train/loop.py", "lab/evaluate/bits.py"}
    assert wanted <= set(code)
    assert not [name for name in code if name.startswith(("analysis/", "lab/genesis/", "tests/"))]
    assert code["blocks/model.py"] == (ROOT / "blocks" / "model.py").stat().st_size
    Budget(10, 6, 4).check()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--int6", "--int8"), "one kind of bits"),
        (("--finest", "0.1"), "--int8 or --int6"),
        (("--int6", "--finest", "2"), "--finest is 2"),
        (("--text", "text.txt"), "add --int8 or --int6"),
        (("--int6", "--no-score", "--stride", "8"), "without --no-score"),
        (("--hf", "x", "--int6"), "whole weights"),
        (("--hf", "run"), "run is there already"),
        (("--hf", "no/x"), "make no"),
        (("--int6", "--budget", "16", "--no-score"), "--budget is 16 bytes"),
        (("--int6", "--budget", "much", "--no-score"), "--budget is 'much'"),
        (("--out", "no/x"), "lies in no folder"),
        (("--int6", "--text", "none.txt"), "none.txt"),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence_and_nothing_is_written(lab, folder: Path, words, said: str) -> None:
    before = sorted(folder.parent.rglob("*"))
    outcome = lab("export", folder, *words)
    assert outcome.code == 2 and said in outcome.err and outcome.err.count("error:") == 1
    assert sorted(folder.parent.rglob("*")) == before


PROBE = """
import json
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM
from lab.model.spec import read_model
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained("hf", trust_remote_code=True)
own = read_model(Path("run/model.safetensors"))[0].eval()
ids = torch.randint(0, 256, (2, 12), generator=torch.Generator().manual_seed(1))
mask = torch.ones_like(ids)
with torch.no_grad():
    same = torch.equal(model(ids).logits, own(ids)[0])
    plain = ids
    for _ in range(6):
        plain = torch.cat([plain, own(plain)[0][:, -1].argmax(-1, keepdim=True)], dim=1)
def made(**options):
    return model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False, **options)
refused = ""
try:
    model(ids, attention_mask=mask.index_fill(1, torch.tensor([0]), 0))
except ValueError as exc:
    refused = str(exc)
model.save_pretrained("again")
again = AutoModelForCausalLM.from_pretrained("again", trust_remote_code=True)
print(json.dumps({
    "same": same,
    "tied": model.lab.head.weight is model.lab.embedding.weight,
    "greedy": torch.equal(made(eos_token_id=None), plain),
    "beams": torch.equal(made(num_beams=3), made(num_beams=3, use_cache=False)),
    "refused": refused,
    "loss": float(model(ids, labels=ids).loss),
    "again": torch.equal(again(ids).logits, model(ids).logits),
}))
"""


def probed(probe: str, home: Path) -> Any:
    """What a process prints that has transformers, and no hub."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "home"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", probe], env={**os.environ, **offline}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_transformers_loads_the_folder_and_says_the_same(answer, folder: Path) -> None:
    assert "ids are the bytes of UTF-8" in answer("export", folder, "--hf", "hf")
    found = probed(PROBE, folder.parent)
    assert found["same"] and found["tied"] and found["greedy"] and found["beams"] and found["again"]
    assert "knows no padding" in found["refused"] and 4 < found["loss"] < 8


PROBE_OF_TALKS = """
import json
from transformers import AutoTokenizer, GenerationConfig
talk = json.load(open("talk.json"))
coded = {name: AutoTokenizer.from_pretrained(name, trust_remote_code=True) for name in ("talks", "texts")}
def written(some, **options):
    return coded["talks"].apply_chat_template(some, return_dict=False, **options)
print(json.dumps({
    "ids": [one(talk[-1]["content"]).input_ids for one in coded.values()],
    "back": [one.decode(one(talk[-1]["content"]).input_ids) for one in coded.values()],
    "talk": written(talk),
    "asked": written(talk[:-1], add_generation_prompt=True),
    "plain": coded["texts"].chat_template,
    "ends": [GenerationConfig.from_pretrained(name).eos_token_id for name in coded],
}))
"""


@pytest.mark.slow
def test_transformers_writes_text_and_conversations_as_they_were_learnt(answer, folder: Path) -> None:
    place, words = folder.parent, ["the cat sat on the mat. äö", "why? \n\nyes, 12"]
    roles = ("system", "user", "assistant") * 2
    talk = [{"role": role, "content": words[i % 2]} for i, role in enumerate(roles)]
    (place / "talk.json").write_text(json.dumps(talk))
    (place / "t.json").write_text(train_bpe(words * 9, 280))
    (place / "talks.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 9)
    answer("data", "prepare", "talks.jsonl", "--chat", "--tokenizer", "t.json", "--out", "data")
    sets = ["model.vocab=300", "data.tokenizer=t.json"]
    for name, data in (("talks", "data"), ("texts", "corpus")):
        spec = loads(TEXT, overrides=[*sets, f"data.train=[{{data: {data}}}]"])
        write_model(build(spec), spec, place / f"{name}.safetensors")
        said = json.loads(answer("export", place / f"{name}.safetensors", "--hf", name, "--json"))
        assert said["learnt_talks"] is (name == "talks")
    coded = open_tokenizer("t.json")
    stop, end = coded.separator, coded.id_of(END)
    ((whole, _),) = encode_batch(coded, [turns_of(talk)])
    found = probed(PROBE_OF_TALKS, place)
    assert found["ids"] == [coded.encode(talk[-1]["content"])] * 2
    assert found["back"] == [talk[-1]["content"]] * 2
    assert found["talk"] == [stop, *whole.tolist()]
    asked = len(found["asked"])
    assert found["asked"] == found["talk"][:asked] and coded.decode(found["talk"][asked:]) == words[1] + "\n"
    assert found["plain"] is None and found["ends"] == [[stop, end], stop]


def test_without_its_data_nobody_knows_whether_a_model_learnt_from_talks(answer, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(train_bpe(["the cat"], 280))
    gone = ["model.vocab=300", f"data.tokenizer={tmp_path / 't.json'}", "data.train=[{data: gone}]"]
    spec = loads(TEXT, overrides=gone)
    write_model(build(spec), spec, tmp_path / "m.safetensors")
    said = answer("export", tmp_path / "m.safetensors", "--hf", tmp_path / "hf")
    assert "no chat template" in said and "data, which are gone" in said
    assert "chat_template" not in json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())


def test_a_tokenizer_goes_with_the_folder(tmp_path: Path) -> None:
    words = {"the": 0, "cat": 1}
    Tokenizer(models.WordLevel(words, unk_token="the")).save(str(tmp_path / "t.json"))
    spec = loads(TEXT, overrides=[f"data.tokenizer={tmp_path / 't.json'}"])
    tokenizer = tokenizer_of(spec)
    files = write_folder(build(spec), spec, tokenizer, tmp_path / "hf", [])
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(files)
    kept = Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    assert kept.token_to_id("<|endoftext|>") == tokenizer.separator == 2
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["eos_token_id"], config["vocab_size"]) == (2, 257)
