"""A pattern at full size: as many parameters as asked for, all else as it was, and a file that says so."""

import json
from pathlib import Path

import polars as pl
import pytest

from blocks import BLOCKS
from blocks.base import Shape
from blocks.model import LanguageModel
from blocks.schedule import parse, tile
from lab.genesis.training import training
from lab.model.commented import CHOSEN, commented
from lab.model.form import Source
from lab.model.scale import LIKE, WITHIN, ScaleError, Size, mixers, recipe, scale, unlike_practice
from lab.model.spec import load, loads
from sweeps.match import knob
from tests.analysis.factory import flat, make_folder, make_frame

PATTERN = "3*(gdn(expand_k=0.5, expand_v=1.0), swiglu(expand=1.0)) + (fox(conv=4), swiglu(expand=1.0))"
SMALL = Size(params=220_000, dim=32, depth=6, heads=2)


@pytest.mark.parametrize(
    ("pattern", "solve"),
    [
        (PATTERN, None),
        ("2*(gla, sparse(k_ratio=0.25)) + (attn, mlp)", None),
        ("gdn + (attn, mlp(expand=7))", None),
        ("gdn + attn", "gdn.expand_v"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_the_built_model_has_the_parameters_asked_for(pattern: str, solve: str | None, tied: bool) -> None:
    unit = parse(pattern)
    size = Size(params=130_000, dim=32, depth=5, heads=2)
    done = scale(unit, size, 257, tied=tied, solve=None if solve is None else knob(solve))
    model = LanguageModel(done.schedule, done.shape, 257, tied=tied)
    assert sum(p.numel() for p in model.parameters()) == done.params == sum(done.parts.values())
    assert abs(done.params - size.params) <= WITHIN * size.params
    assert done.schedule == tile(done.unit, 5) and done.step is not None and done.width is not None
    assert done.width % done.step == 0
    # Whatever was not solved is as it was.
    name, _, option = (done.solved or "").partition(".")
    same = [
        (a, b)
        for before, after in zip(unit, done.unit, strict=True)
        for a, b in zip(before, after, strict=True)
        if type(a).__name__.lower() != name
    ]
    assert option and same and all(a == b for a, b in same)


def test_a_width_is_as_round_as_the_tolerance_allows() -> None:
    # One step of 64 is 64 x 3 x 576 x 30 weights, 2.2 % of the model: some multiple of 32 is near enough.
    done = scale(parse("3*(gdn, swiglu) + (fox, swiglu)"), LIKE["genesis-152m"], 257)
    assert done.step in (64, 32) and abs(done.off) <= WITHIN
    fine = scale(
        parse("swiglu"), Size(params=257 * 32 + 32 * 2 + 3 * 32 * 101, dim=32, depth=1, heads=1), 257
    )
    assert (fine.width, fine.step) == (101, 1)


def test_the_layout_of_genesis_is_met_as_it_stands() -> None:
    # Its 1.5M weights of metacognition, which never learn, are all that this model lacks of its 151.8M.
    unit = parse("3*(gdn, swiglu(expand=2.5)) + (fox(conv=4), swiglu(expand=2.5))")
    size = LIKE["genesis-152m"]
    whole = scale(unit, Size(params=152_600_000, dim=size.dim, depth=size.depth, heads=size.heads), 50_279)
    counts = [type(layer[0]).__name__ for layer in whole.schedule]
    assert (counts.count("GDN"), counts.count("FoX")) == (23, 7)
    again = scale(whole.unit, Size(params=whole.params, dim=size.dim, depth=30, heads=9), 50_279)
    assert again.solved is None and again.unit == whole.unit


@pytest.mark.parametrize(
    ("pattern", "solve", "said"),
    [
        ("gdn + attn", None, "none of swiglu, sparse, mlp"),
        (PATTERN, "mlp.expand", "has no mlp"),
        (PATTERN.replace("swiglu", "mlp"), "fox.forget_bias", "cannot be brought to 220,000 within 0.5 %"),
    ],
)
def test_what_cannot_be_solved_is_said(pattern: str, solve: str | None, said: str) -> None:
    with pytest.raises(ScaleError, match=said):
        scale(parse(pattern), SMALL, 257, solve=None if solve is None else knob(solve))


def test_too_many_layers_for_the_parameters() -> None:
    with pytest.raises(ScaleError, match=r"cannot be brought to 20,000.*the nearest is"):
        scale(parse(PATTERN), Size(params=20_000, dim=32, depth=6, heads=2), 257)


def test_a_narrow_state_is_kept_and_told() -> None:
    shape, layers = Shape(dim=64, heads=1), parse("gdn(expand_k=0.125) + (attn, swiglu) + gdn(expand_k=1.0)")
    narrow, full, wide = mixers(layers, shape, 100)
    assert narrow.head == (1, 8) and full.head == (1, 64) and wide.head == (1, 64)
    assert full.tensors["k"] == (None, 1, 64) and narrow.tensors["s"] == (1, 8, 96)
    (warning,) = unlike_practice([narrow, full, wide])
    assert "1 heads with keys of 8" in warning and "32 to 256" in warning
    assert (narrow.layers, full.scalars) == (1, 2 * 100 * 64)


def test_the_file_is_the_specification_and_says_what_was_chosen() -> None:
    done = scale(parse(PATTERN), SMALL, 257)
    spec = recipe(done, "tiny", 257, "bytes", [Source(data="corpus")], 2_000_000_000, BLOCKS)
    text = commented(spec, ["two", "lines"])
    assert loads(text) == spec and text.startswith("# two\n# lines\nkind: model\n")
    assert all(f"# {line}\n" in text for note in CHOSEN.values() for line in note.splitlines())
    mixture = training().pre_training.mixture.value
    assert mixture is not None and all(
        f"{name} {share:g}" in CHOSEN["data.train"] for name, share in mixture.items()
    )
    # The six folders that it shows load, with the weights of the mixture.
    shown = " ".join(CHOSEN["data.train"].partition("train: ")[2].split())
    six = loads(text, overrides=[f"data.train={shown}"]).data.train
    assert [one.weight for one in six] == list(mixture.values())
    assert (spec.train.steps, spec.train.batch, spec.data.length) == (7629, 128, 2048)
    rate = spec.train.rate
    assert (rate.shape, rate.warmup, rate.decay, spec.train.optimiser.betas) == (
        "wsd",
        0.05,
        0.1,
        (0.9, 0.95),
    )


RECIPE = """\
name: ratios
pattern: r*(gdn, swiglu) + (fox, swiglu)
depth: 6
shape: {dim: 32, heads: 2, norm: rms_zero}
tasks: [recall]
search: {r: [3, 4, 5]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)

    def curve(label: str, task: str, seed: int, _lr: float) -> list[float]:
        return flat({"r=3": 0.5, "r=4": 0.7, "r=5": 0.4}[label] + 0.01 * (seed + len(task)) % 3)

    frame = make_frame(seeds=range(2), tasks=["recall"], settings=1, curve=curve)
    choices = ('{"r": ' + frame["label"].str.slice(2) + "}").alias("choices")
    # Cut at the recipe's depth, as a sweep stores them; the pattern of r=3 is its first four layers.
    cut = {
        "r=3": "3*(gdn, swiglu) + (fox, swiglu) + 2*(gdn, swiglu)",
        "r=4": "4*(gdn, swiglu) + (fox, swiglu) + (gdn, swiglu)",
    }
    schedule = pl.col("label").replace(cut | {"r=5": "5*(gdn, swiglu) + (fox, swiglu)"}).alias("schedule")
    return make_folder(Path("runs/ratios"), frame.with_columns(choices, schedule), RECIPE)


SIZE = ("--params", "400k", "--width", "32", "--depth", "11", "--heads", "2", "--tokens", "10M")


def test_the_winner_of_a_folder_becomes_a_file(answer, folder: Path) -> None:
    page = answer("scale", "ratios", *SIZE, "--out", "winner.yaml")
    spec = load(Path("winner.yaml"))
    assert page.startswith("r=4 of runs/ratios: ") and "9 linear, 2 full of 11 layers" in page
    told, (solved,) = page.splitlines()[0], [one for one in page.splitlines() if one.startswith("solved")]
    head = Path("winner.yaml").read_text().splitlines()[:2]
    assert head == [f"# {told}", f"# {' '.join(solved.split())}"] and " to a width of " in solved
    assert spec.name == "winner" and spec.model.depth == 11 and spec.model.shape.norm == "rms_zero"
    assert [type(layer[0]).__name__ for layer in parse(spec.model.schedule)] == ["GDN"] * 4 + ["FoX"]
    assert spec.train.steps == 10_000_000 // (128 * 2048)
    other = json.loads(answer("scale", folder, *SIZE, "--candidate", "r=3", "--json"))
    assert other["candidate"] == "r=3" and other["layers"] == {"linear": 9, "window": 0, "full": 2}
    assert len(parse(other["spec"]["model"]["schedule"])) == 4 and other["file"] is None
    assert abs(other["params"]["total"] / 400_000 - 1) <= 0.005


def test_a_schedule_goes_to_stdout_where_no_file_is_named(answer, folder: Path) -> None:
    text = answer("scale", PATTERN, *SIZE, "--data", "web=3", "--data", "code=1")
    spec = loads(text)
    assert [(one.data, one.weight) for one in spec.data.train] == [("web", 3.0), ("code", 1.0)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere", "--like", "genesis-152m"), ("nowhere", "no such folder")),
        (("ratios",), ("--params and --width and --depth are not given", "--like genesis-152m")),
        (("ratios", "--like", "gpt"), ("--like is 'gpt'", "genesis-152m")),
        (("ratios", "--params", "many"), ("--params is 'many'", "152M")),
        (("ratios", *SIZE, "--candidate", "r=33"), ("'r=33'", "did you mean 'r=3'")),
        (("ratios", *SIZE, "--solve", "gdn.expandv"), ("--solve", "did you mean 'expand_v'")),
        (("ratios", *SIZE, "--solve", "dim"), ("--solve is dim", "--width")),
        (("ratios", *SIZE, "--data", "web=no"), ("--data is 'web=no'", "WEIGHT")),
        (("ratios", *SIZE, "--vocab", "256"), ("--vocab is 256", "257")),
        (("ratios", *SIZE, "--out", "here.yaml"), ("here.yaml exists already",)),
        (("ratios", *SIZE, "--out", "none/x.yaml"), ("none/x.yaml", "folder that exists")),
        (("gdn", *SIZE, "--candidate", "r=3"), ("--candidate", "is a schedule")),
        (
            ("ratios", "--params", "1M", "--width", "40", "--depth", "4"),
            ("40 is no multiple of 64", "--heads"),
        ),
        (("ratios", *SIZE, "--width", "33"), ("24.75", "2 heads")),
    ],
    ids=str,
)
def test_bad_input_is_one_sentence(lab, folder: Path, words: tuple[str, ...], said: tuple[str, ...]) -> None:
    Path("here.yaml").write_text("mine")
    outcome = lab("scale", *words)
    assert (outcome.code, outcome.out) == (2, "") and outcome.err.count("error:") == 1
    assert all(word in outcome.err for word in said), outcome.err
    assert Path("here.yaml").read_text() == "mine" and not Path("winner.yaml").exists()


def test_each_kind_of_file_is_sent_to_its_command(lab, folder: Path) -> None:
    Path("model.yaml").write_text(lab("scale", PATTERN, *SIZE).out)
    Path("recipe.yaml").write_text("kind: sweep\n" + RECIPE)
    assert lab("validate", "recipe.yaml").code == 0
    refused = lab("sweep", "model.yaml")
    assert refused.code == 2 and "kind: model" in refused.err and "lab train" in refused.err
    with pytest.raises(ValueError, match=r"this is a recipe \(kind: sweep\).*lab sweep runs it"):
        load(Path("recipe.yaml"))
