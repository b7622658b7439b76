"""The recipe of parameter golf end to end, at toy size: trained, scored, adapted, rounded, scored again."""

import json
from pathlib import Path

import pytest

from lab.data.prepare import prepare
from lab.data.tokens import Bytes
from lab.model.spec import read_model
from lab.train.shipped import load

ROOT = Path(__file__).parents[3]
ATTN, MLP = "attn(kv_heads=1, rope=0.25, qk_gain=1.5", "mlp(expand=3, act='relu2', slope=0.5)"
SMALL = (
    f"model.schedule=({ATTN}), {MLP}) + ({ATTN}, exclusive=True, values=True), {MLP})",
    "model.inputs=bigram(buckets=64, dim=8) + norm + smear",
    "model.values=embedding(dim=8)",
    "model.shape={dim: 16, heads: 2}",
    "model.vocab=257",
    "data={tokenizer: bytes, train: [{data: tokens}], length: 64}",
    "train.steps=12",
    "train.batch=4",
    "train.micro=4",
    "train.precision=fp32",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the README as tokens, its paragraphs documents."""
    monkeypatch.chdir(tmp_path)
    for number, text in enumerate((ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")):
        (tmp_path / f"{number:03}.txt").write_text(text, encoding="utf-8")
    prepare([str(path) for path in sorted(tmp_path.glob("*.txt"))], tmp_path / "tokens", Bytes(), valid=0.2)
    return tmp_path


def test_from_the_training_to_the_file_below_its_budget(answer, lab, place: Path) -> None:
    sets = [word for one in SMALL for word in ("--set", one)]
    trained = json.loads(answer("train", "golf", *sets, "--peak", "1", "--json"))
    assert trained["state"] == "finished"
    lines = [json.loads(line) for line in Path("models/golf/log.jsonl").read_text().splitlines()]
    # No warm-up; constant, and down a straight line over 59 % of the steps.
    shares = [line["lr"] / 0.035 for line in lines]
    assert shares == pytest.approx([1] * 6 + [1 - i / 7 for i in range(1, 7)])

    file, few = "models/golf/model.safetensors", ("--limit", 1500, "--json")
    golf = ("--golf", "--set", "chunk=256", "--set", "epochs=2", "--set", "row=64")
    found = json.loads(answer("eval", file, *golf, *few))["ttt"]
    assert found["how"] == {"window": 64, "stride": 64}
    legal, published = found["score_first"], found["contaminated"]
    assert legal["leaks"] is False and published["leaks"] is True
    assert (legal["settings"]["optimiser"], legal["settings"]["cosine"]) == ("sgd", True)
    assert published["settings"]["cosine"] and published["settings"]["rates"]["*.channel.out.*"] == 3
    # Its name goes with the contaminated figure, so that none takes it for the other.
    assert "bits_per_byte" not in published and published["contaminated_bits_per_byte"] > 0

    made = json.loads(answer("export", "models/golf", "--int6", "--budget", "16MB", "--stride", 16, *few))
    (scored,) = made["texts"]
    assert scored["after"] == pytest.approx(scored["before"], abs=0.05) and made["budget"]["left"] > 0
    (again,) = json.loads(answer("eval", made["file"], "--stride", 16, *few))["texts"]
    assert again["bits_per_byte"] == scored["after"]


def test_at_its_size_it_is_the_recipe_as_it_was_published() -> None:
    spec = load("golf")
    assert spec.train.batch * spec.data.length == 786_432
    assert round(spec.train.rate.decay * spec.train.steps) == 3501
    assert spec.train.average is not None and spec.train.average.decay == 0.997
    tight = load("golf", ["train.average={kind: swa, share: 1, below: 0.2, every: 50}"])
    assert tight.train.average is not None and tight.train.average.below == 0.2


def test_longer_steps_make_the_file_smaller(place: Path, answer) -> None:
    sets = [word for one in (*SMALL, "train.steps=1") for word in ("--set", one)]
    answer("train", "golf", *sets, "--peak", "1")
    sizes = []
    for number, finest in enumerate((0.0, 1 / 31)):
        words = ("--int6", "--finest", finest, "--no-score", "--out", f"{number}.zst", "--json")
        sizes.append(json.loads(answer("export", "models/golf", *words))["bytes"])
    assert sizes[1] < 0.9 * sizes[0]
    coarse, _ = read_model(Path("1.zst"))
    step = coarse.stack.parts()[0]["block"].q.weight.detach() * 31  # pyright: ignore
    assert float((step - step.round()).abs().max()) < 0.02
