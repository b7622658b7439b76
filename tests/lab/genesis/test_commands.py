"""``lab genesis info`` and ``logits``: exact figures, arrays in and out, and bad input in one sentence."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.genesis_model import CONFIGS, MODES, GenesisConfig, GenesisModel, Mode
from lab.genesis.info import metacognition_flops
from lab.genesis.weights import load
from tests.blocks.counting import Products
from tests.lab.genesis.small import SMALL, VOCAB, some_ids, words, written


def npy(array: np.ndarray[Any, Any], pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=pickled)
    return file.getvalue()


def header(shape: str, kind: str = "<i8") -> bytes:
    """An .npy file that says it has this shape, and holds nothing."""
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


IDS = some_ids(2, 5).numpy()
WRONG = IDS.copy()
WRONG[1, 3] = VOCAB
FILES = {
    "ids.npy": npy(IDS),
    "text.npy": b"1 2 3\n",
    "empty.npy": b"",
    "cut.npy": npy(IDS)[:-8],
    "header.npy": npy(IDS)[:40],
    "garbage.npy": b"\x93NUMPY" + bytes(range(250)),
    "promise.npy": header("(1000000000000, 4)"),
    "beyond.npy": header(f"({10**40}, {10**40})"),
    "objects.npy": npy(np.array([[{}]], dtype=object), pickled=True),
    "pickle.npy": b"\x80\x04K\x01.",
    "float.npy": npy(IDS.astype("float32")),
    "bool.npy": npy(IDS > 3),
    "line.npy": npy(IDS[0]),
    "cube.npy": npy(IDS[None]),
    "none.npy": npy(IDS[:0]),
    "short.npy": npy(IDS[:, :0]),
    "above.npy": npy(WRONG),
    "below.npy": npy(-WRONG),
    "huge.npy": npy(np.array([[2**64 - 1]], dtype="uint64")),
    "folder.npy/file": b"",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("genesis") / "w").read_bytes()


@pytest.fixture
def place(tmp_path: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in {**FILES, "w.safetensors": weights}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


LOGITS = "logits w.safetensors --out o.npy --ids"
GENERATE = "generate w.safetensors"
CASES: dict[str, tuple[str, ...]] = {
    f"{LOGITS} text.npy": ("--ids text.npy is no .npy file", "numpy.save"),
    f"{LOGITS} empty.npy": ("--ids empty.npy is no .npy file",),
    f"{LOGITS} cut.npy": ("--ids cut.npy is no whole .npy file",),
    f"{LOGITS} header.npy": ("--ids header.npy is no whole .npy file",),
    f"{LOGITS} garbage.npy": ("--ids garbage.npy is no whole .npy file",),
    f"{LOGITS} promise.npy": ("--ids promise.npy is no whole .npy file",),
    f"{LOGITS} beyond.npy": ("--ids beyond.npy is no whole .npy file",),
    f"{LOGITS} objects.npy": ("objects.npy holds pickled Python objects", "never opened"),
    f"{LOGITS} pickle.npy": ("pickle.npy is no .npy file",),
    f"{LOGITS} w.safetensors": ("w.safetensors is no .npy file",),
    f"{LOGITS} float.npy": ("float.npy is of type float32", "integer"),
    f"{LOGITS} bool.npy": ("bool.npy is of type bool", "integer"),
    f"{LOGITS} line.npy": ("line.npy is [5]", "two dimensions", "[1, T]"),
    f"{LOGITS} cube.npy": ("cube.npy is [1, 2, 5]", "two dimensions"),
    f"{LOGITS} none.npy": ("none.npy is [0, 5]", "at least one"),
    f"{LOGITS} short.npy": ("short.npy is [2, 0]", "at least one"),
    f"{LOGITS} above.npy": ("above.npy: id 97 at [1, 3]", "0 to 96"),
    f"{LOGITS} below.npy": (f"below.npy: id {-IDS[0, 0]} at [0, 0]", "0 to 96"),
    f"{LOGITS} huge.npy": ("huge.npy: id 18446744073709551615 at [0, 0]", "0 to 96"),
    f"{LOGITS} nowhere.npy": ("no file nowhere.npy",),
    f"{LOGITS} folder.npy": ("folder.npy is a directory",),
    f"{LOGITS} /dev/zero": ("--ids /dev/zero is a pipe or a device",),
    f"{LOGITS} ids.npy --mode eval": ("--mode is 'eval'", "shipped-eval"),
    f"{LOGITS} ids.npy --dtype float16": ("--dtype is 'float16'", "float64"),
    f"{LOGITS} ids.npy --config small": ("--config is 'small'", "genesis-152m"),
    "logits w.safetensors --ids ids.npy --out none/o.npy": ("--out none/o.npy", "folder that exists"),
    "logits w.safetensors --ids ids.npy --out folder.npy": ("--out folder.npy is a directory",),
    "logits w.safetensors --ids ids.npy --out ids.npy/o.npy": ("--out ids.npy/o.npy", "folder that exists"),
    "logits w.safetensors --ids ids.npy --out o.txt": ("--out o.txt", ".npy"),
    "logits none.safetensors --ids ids.npy --out o.npy": ("no file none.safetensors",),
    "logits ids.npy --ids ids.npy --out o.npy": ("ids.npy: is no whole safetensors file",),
    "logits w.safetensors --out o.npy": ("--ids", "lab genesis logits --help"),
    "info none.safetensors": ("no file none.safetensors",),
    "info ids.npy": ("ids.npy: is no whole safetensors file",),
    "info --config large": ("--config is 'large'", "genesis-sweetspot"),
    "inf": ("inf", "lab genesis --help"),
    f"{GENERATE}": ("--prompt", "--ids", "neither"),
    f"{GENERATE} --prompt x --ids ids.npy": ("--prompt", "--ids", "both"),
    f"{GENERATE} --prompt x": ("--prompt needs --tokenizer", "GPT-NeoX", "50277 and 50278"),
    f"{GENERATE} --ids above.npy": ("id 97 at [1, 3]", "0 to 96"),
    f"{GENERATE} --ids float.npy": ("float.npy is of type float32",),
    # Said before the weights are looked for, let alone read.
    "generate none.safetensors --ids ids.npy --mode shipped-eval": ("shipped-eval averages", "shipped-cache"),
    f"{GENERATE} --ids ids.npy --mode shipped-eval-delta": ("shipped-eval-delta averages", "documented"),
    f"{GENERATE} --ids ids.npy --mode cache": ("--mode is 'cache'", "shipped-cache"),
    f"{GENERATE} --ids ids.npy --steps 0": ("--steps", "1"),
    f"{GENERATE} --ids ids.npy --temperature -1": ("temperature is -1", "0"),
    f"{GENERATE} --ids ids.npy --temperature nan": ("temperature is nan", "0"),
    f"{GENERATE} --ids ids.npy --temperature hot": ("--temperature", "'hot'"),
    f"{GENERATE} --ids ids.npy --top-k 0": ("top-k is 0", "at least 1"),
    f"{GENERATE} --ids ids.npy --top-p 0": ("top-p is 0", "at most 1"),
    f"{GENERATE} --ids ids.npy --top-p 1.5": ("top-p is 1.5", "at most 1"),
    f"{GENERATE} --ids ids.npy --repetition-penalty 0": ("repetition penalty is 0", "above 0"),
    f"{GENERATE} --ids ids.npy --seed -1": ("--seed", "-1"),
    f"{GENERATE} --ids ids.npy --seed 99999999999999999999": ("--seed", "99999999999999999999"),
    f"{GENERATE} --ids ids.npy --stop 97": ("--stop 97", "0 to 96"),
    f"{GENERATE} --ids ids.npy --stop <|im_end|>": ("--stop is '<|im_end|>'", "--tokenizer"),
    f"{GENERATE} --ids ids.npy --tokenizer nowhere.json": ("no file nowhere.json",),
    f"{GENERATE} --ids ids.npy --tokenizer ids.npy": ("--tokenizer ids.npy is no tokenizer.json",),
    f"{GENERATE} --ids ids.npy --tokenizer folder.npy": ("folder.npy is a directory",),
    f"{GENERATE} --ids ids.npy --tokenizer /dev/zero": ("--tokenizer /dev/zero is a pipe or a device",),
    "chat w.safetensors": ("chat needs --tokenizer", "GPT-NeoX", "50277 and 50278"),
    "chat none.safetensors --mode shipped-eval": ("shipped-eval averages",),
}


@pytest.mark.parametrize("line", list(CASES))
def test_bad_input_is_one_sentence_and_exit_code_2(line: str, lab, place: Path) -> None:
    before = sorted(place.rglob("*"))
    outcome = lab("genesis", *line.split())
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("error: ") and len(outcome.err.splitlines()) == 1, outcome.err
    for part in CASES[line]:
        assert part in outcome.err, outcome.err
    assert sorted(place.rglob("*")) == before, "nothing is written"


def test_a_pipe_is_refused_and_not_waited_for(lab, place: Path) -> None:
    os.mkfifo("pipe")
    for line in (f"{LOGITS} pipe", f"{GENERATE} --ids ids.npy --tokenizer pipe"):
        outcome = lab("genesis", *line.split())
        assert outcome.code == 2 and "pipe is a pipe or a device" in outcome.err


@pytest.mark.parametrize("mode", MODES)
def test_logits_are_those_of_the_model(mode: Mode, answer, place: Path) -> None:
    said = answer(
        "genesis", *words(f"logits w.safetensors --ids ids.npy --mode {mode} --dtype float64 --out o.npy")
    )
    assert said == f"logits [2, 5, 97] in float64, {mode}: o.npy\n"
    model = load("w.safetensors", mode, torch.float64)
    with torch.no_grad():
        wanted, _ = model(torch.from_numpy(IDS))
    found = np.load("o.npy")
    assert found.dtype == np.float64 and np.abs(found - wanted.numpy()).max() < 1e-12


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64", ">i4"])
def test_ids_may_be_of_any_integer_type_and_order(kind: str, answer, place: Path) -> None:
    np.save("other.npy", np.asfortranarray(IDS.astype(kind)))
    for name in ("ids", "other"):
        answer("genesis", *words(f"logits w.safetensors --ids {name}.npy --out {name}-out.npy"))
    assert Path("ids-out.npy").read_bytes() == Path("other-out.npy").read_bytes()


def test_bfloat16_is_computed_and_written_as_float32(answer, place: Path) -> None:
    answer("genesis", *words("logits w.safetensors --ids ids.npy --dtype bfloat16 --out o.npy"))
    found = np.load("o.npy")
    assert found.dtype == np.float32 and np.isfinite(found).all()
    assert np.array_equal(torch.from_numpy(found).bfloat16().float().numpy(), found)


def test_a_length_that_was_not_trained_is_computed_with_a_note(lab, place: Path) -> None:
    np.save("long.npy", np.tile(IDS[:1, :1], (1, 2049)))
    line = "logits w.safetensors --ids {} --mode shipped-train --out o.npy"
    outcome = lab("genesis", *line.format("long.npy").split())
    assert outcome.code == 0 and outcome.err.startswith("note: up to 2,049 tokens")
    assert np.load("o.npy").shape == (1, 2049, VOCAB)
    assert lab("genesis", *line.format("ids.npy").split()).err == ""


def test_whoever_reads_the_old_array_keeps_it(answer, place: Path) -> None:
    Path("o.npy").write_bytes(b"before")
    with Path("o.npy").open("rb") as reader:
        answer("genesis", *words(f"{LOGITS} ids.npy"))
        assert reader.read() == b"before"
    assert np.load("o.npy").shape == (2, 5, VOCAB)


def test_a_write_that_fails_leaves_what_was_there(lab, place: Path, monkeypatch) -> None:
    Path("o.npy").write_bytes(b"before")

    def full(file: Any, _: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device", "o.npy")

    monkeypatch.setattr("lab.genesis.ids.np.save", full)
    before = sorted(place.iterdir())
    outcome = lab("genesis", *words(f"{LOGITS} ids.npy"))
    assert outcome.code == 2 and "No space left" in outcome.err
    assert Path("o.npy").read_bytes() == b"before" and sorted(place.iterdir()) == before


@pytest.mark.parametrize("name", CONFIGS)
def test_the_page_of_a_configuration_holds_its_figures(name: str, answer) -> None:
    page = answer("genesis", "info", "--config", name)
    found = json.loads(answer("genesis", "info", "--config", name, "--json"))
    with torch.device("meta"):
        model = GenesisModel(CONFIGS[name])
    params = dict(found["params"])
    total, without = params.pop("total"), params.pop("total without embedding")
    assert total == sum(params.values()) == sum(p.numel() for p in model.parameters())
    assert without == total - model.embedding.weight.numel()
    assert [one["mode"] for one in found["modes"]] == list(MODES)
    sizes = [cost["state_scalars"] for mode in found["modes"] for cost in mode["costs"]]
    for size in [*found["params"].values(), *(size for size in sizes if size is not None)]:
        assert f"{size:,}" in page
    for mode in found["modes"]:
        assert f"{mode['mode']}\n  {mode['what']}\n  {mode['schedule']}\n" in page


def test_without_a_file_it_is_the_released_model(answer) -> None:
    found = json.loads(answer("genesis", "info", "--json"))
    assert found["model"] == "genesis-152m"
    assert found["params"]["total"] == 151_757_837
    assert found["params"]["total without embedding"] == 122_797_133
    assert found["counts"] == {"linear": 23, "window": 0, "full": 7, "depth": 30}
    assert "---#---#---#---#---#---#---#--" in answer("genesis", "info")


def test_a_file_is_told_by_its_own_header(answer, place: Path) -> None:
    found = json.loads(answer("genesis", "info", "w.safetensors", "--json"))
    assert {key: found["config"][key] for key in SMALL} == SMALL
    assert found["params"]["total"] == sum(GenesisConfig(**SMALL).params().values())


def scalars(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel()
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return sum(map(scalars, parts))


@pytest.mark.parametrize("mode", MODES)
def test_state_and_flops_are_those_of_the_model(mode: Mode, answer, place: Path) -> None:
    found = json.loads(answer("genesis", "info", "w.safetensors", "--json"))
    (row,) = (one for one in found["modes"] if one["mode"] == mode)
    model = load("w.safetensors", mode)
    with torch.no_grad():
        _, state = model(some_ids(1, 64))
    form = MODES[mode].metacognition
    assert row["costs"][0]["length"] == 64
    assert row["costs"][0]["state_scalars"] == (None if form == "batch mean" else scalars(state))
    if form is None:
        assert metacognition_flops(model.config, mode) == 0
        return
    x_11D, past = torch.ones(1, 1, 64), state[-1][0] or None
    with torch.no_grad(), Products() as counted:
        model.metacognition(x_11D, past, per_token=form == "per token")
    # One call of one token: A B once, and the token's pair with itself, which the mask takes out again.
    once = 2 * 64 + 64 * 64 * model.config.ttt_rank if form == "per token" else 0
    assert metacognition_flops(model.config, mode) == 2 * (counted.multiply_adds - once)
