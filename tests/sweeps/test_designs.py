"""What models have beside their layers, in a sweep: trained, told apart, counted, refused where wrong."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from blocks.design import PLAIN
from sweeps import results, space
from sweeps.pool import use_one_thread
from sweeps.recipe import RecipeError, loads
from sweeps.run import code_hash, execute, runs_of
from sweeps.study import sweep

TEXT = """\
name: designs
design: {residual: unet, softcap: 30.0}
schedules:
  shared: 2*(gdn(conv=2), swiglu)
  plain: {schedule: "2*(gdn(conv=2), swiglu)", residual: null, softcap: null}
  more:
    schedule: (gdn(conv=2), swiglu) + (attn(values=True), swiglu)
    inputs: bigram(buckets=32, dim=4) + norm + smear
    values: embedding(dim=4)
shape: {dim: 16, heads: 2}
tasks: ["recall(vocab=8, length=16, train_examples=64)", "compression(vocab=8, length=8, train_examples=64)"]
train: {steps: 4, batch: 8, eval_every: 2, eval_examples: 16, lr: 1e-2}
seeds: 1
"""


def test_what_an_entry_does_not_write_is_as_the_recipe_has_it() -> None:
    found = {one.label: one for one in space.candidates(loads(TEXT))}
    assert found["shared"].around == (("residual", "unet"), ("softcap", 30.0))
    assert found["plain"].around == () and found["plain"].design == PLAIN
    assert found["more"].design_text == (
        "inputs: bigram(buckets=32, dim=4) + norm + smear, residual: unet, values: embedding(dim=4), "
        "softcap: 30.0"
    )
    assert len({one.arch for one in found.values()}) == 3


def test_a_plain_design_is_none() -> None:
    """Neither the hash of an architecture nor the key of a run knows of designs where there is none."""
    written, bare = TEXT.replace("design: {residual: unet, softcap: 30.0}\n", ""), "2*(gdn(conv=2), swiglu)"
    with_none = space.candidates(loads(written))[0]
    listed = (
        TEXT[: TEXT.index("design:")] + f'schedules: {{shared: "{bare}"}}\n' + TEXT[TEXT.index("shape:") :]
    )
    (without,) = space.candidates(loads(listed))
    assert with_none.arch == without.arch
    runs = [
        next(runs_of(loads(listed), one, space.task_texts(loads(listed)), 0)) for one in (with_none, without)
    ]
    assert runs[0].key("code") == runs[1].key("code")
    other = replace(runs[0], candidate=replace(with_none, around=(("norms", "bare"),)))
    assert other.key("code") != runs[0].key("code") and other.candidate.arch != with_none.arch


def test_layers_that_are_joined_are_not_only_their_blocks() -> None:
    """Without a residual of its own, where a layer ends is for counting alone."""
    split = '  split: {schedule: "2*[gdn(conv=2) + swiglu]", residual: null, softcap: null}'
    text = TEXT.replace("  more:", f"{split}\n  more:")
    recipe = loads(text)
    found = {one.label: one for one in space.candidates(recipe)}
    assert found["plain"].also == ("split",) and "split" not in found
    joined = text.replace("residual: null, softcap: null", "residual: ln_scale")
    assert {"plain", "split"} <= {one.label for one in space.candidates(loads(joined))}


def test_a_sweep_trains_them_and_says_what_they_are(tmp_path: Path) -> None:
    recipe, folder = loads(TEXT), tmp_path / "designs"
    outcome = sweep(recipe, folder, workers=1)
    assert (outcome.trained, outcome.failures) == (6, ())
    frame = results.read(folder).frame.filter("final")
    found = {one.label: one for one in space.candidates(recipe)}
    assert dict(frame.select("label", "design").unique().iter_rows()) == {
        label: one.design_text for label, one in found.items()
    }
    for task in frame["setting"].unique():
        sizes = dict(frame.filter(pl.col("setting") == task).select("label", "params").iter_rows())
        assert sizes["shared"] == sizes["plain"] + 16  # one skip
    use_one_thread()
    run = next(runs_of(recipe, found["more"], space.task_texts(recipe), 0))
    alone = results.to_frame(execute(run, 2, code_hash())).drop("seconds")
    stored = results.read(folder).frame.filter(pl.col("run") == alone["run"][0]).drop("seconds")
    assert stored.sort("step", "final").equals(alone.sort("step", "final"))


def test_rows_of_before_have_none(tmp_path: Path) -> None:
    recipe = loads(TEXT.replace("seeds: 1", "seeds: 1\ntrials: all"))
    run = next(runs_of(recipe, space.candidates(recipe)[1], space.task_texts(recipe), 0))
    use_one_thread()
    frame = results.to_frame(execute(run, 0, "code"))
    results.write_bytes(tmp_path / "old.parquet", _bytes(frame.drop("design").with_columns(_version(3))))
    assert results.read_runs([tmp_path / "old.parquet"])["design"].to_list() == [None] * frame.height


def _version(number: int) -> pl.Expr:
    return pl.lit(number, pl.Int16).alias("schema_version")


def _bytes(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("residual: unet,", "residual: unnet,", (":2:", "design.residual", "did you mean 'unet'")),
        ("norm + smear", "norm + smeer", (":8:", "schedules.more.inputs", "did you mean 'smear'")),
        ("    values: embedding(dim=4)\n", "", ("schedules.more", "only a block asks for one")),
        ("residual: null", "residul: null", ("residul", "did you mean 'residual'?")),
        ("softcap: 30.0", "softcap: -1.0", ("design.softcap", "must be above 0")),
    ],
)
def test_what_is_no_design_is_said_where_it_stands(old: str, new: str, words: tuple[str, ...]) -> None:
    assert old in TEXT
    with pytest.raises(RecipeError) as raised:
        loads(TEXT.replace(old, new, 1), "designs.yaml")
    assert all(word in str(raised.value) for word in words), str(raised.value)
