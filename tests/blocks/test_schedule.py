"""Laws of the notation: what prints back parses to the same value, and what is wrong is pointed at."""

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from blocks import BLOCKS
from blocks.schedule import ScheduleError, names, parse, show, tile

LAYERS = st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3).map(
    lambda words: words[0] if len(words) == 1 else f"({', '.join(words)})"
)
TEXTS = st.recursive(
    LAYERS,
    lambda inner: st.one_of(
        st.tuples(st.integers(1, 4), inner).map(lambda t: f"{t[0]}*[{t[1]}]"),
        st.lists(inner, min_size=2, max_size=4).map(" + ".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
    ),
    max_leaves=8,
)


@seed(20261122)
@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_show_parses_back_to_the_same_schedule(text: str) -> None:
    schedule = parse(text)
    assert parse(show(schedule)) == schedule
    assert show(parse(show(schedule))) == show(schedule)
    assert len(show(schedule)) <= len(" + ".join(show((layer,)) for layer in schedule))


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_every_block_is_one_word_and_takes_its_defaults_by_name(name: str) -> None:
    assert parse(name) == ((BLOCKS[name](),),)
    assert show(parse(name)) == name


def test_genesis_layout_has_the_counts_of_its_card() -> None:
    schedule = parse("7*[3*(gdn, sparse) + (fox, sparse)] + 2*(gdn, sparse)")
    mixers = [show(((layer[0],),)) for layer in schedule]
    assert (len(schedule), mixers.count("gdn"), mixers.count("fox")) == (30, 23, 7)
    assert show(schedule) == "7*[3*(gdn, sparse) + (fox, sparse)] + 2*(gdn, sparse)"


def test_variables_stand_for_counts_options_and_blocks() -> None:
    text = "r*(m, sparse(k_ratio=k)) + (fox, swiglu)"
    assert names(text) == {"r", "m", "k"}
    assert parse(text, variables={"r": 3, "m": "gdn", "k": 0.25}) == parse(
        "3*(gdn, sparse(k_ratio=0.25)) + (fox, swiglu)"
    )
    assert parse("m", variables={"m": "attn(window=8)"}) == parse("attn(window=8)")


def test_tile_repeats_and_cuts() -> None:
    pattern = parse("3*gdn + fox")
    assert tile(pattern, 4) == pattern
    assert tile(pattern, 6) == pattern + pattern[:2]
    full = {
        r: tile(parse("r*gdn + fox", variables={"r": r}), 20).count(parse("fox")[0]) for r in (3, 4, 5, 6)
    }
    assert full == {3: 5, 4: 4, 5: 3, 6: 2}


WRONG = {
    "gnd": "did you mean 'gdn'",
    "3*gdn +": "does not parse",
    "": "empty",
    "gdn(nope=1)": "no option 'nope'",
    "gdn(conv='x')": "conv is 'x'",
    "gdn(conv=True)": "conv is True",
    "gdn(4)": "options are named",
    "attn(window=w)": "unknown block or variable 'w'",
    "2.5*gdn": "whole number",
    "gdn*3": "left of \\* stands a count",
    "-1*gdn": "between 0 and",
    "0*gdn": "no layer",
    "999999999*gdn": "between 0 and",
    "1000*[1000*gdn]": "1,000,000 layers",
    "(gdn, 2*fox)": "inside a layer",
    "((gdn, fox), fox)": "inside a layer",
    "()": "at least one block",
    "gdn - fox": "inside a layer|expected a block",
    "__import__('os').system('x')": "expected a block|unknown block",
    "gdn.__class__": "expected a block",
    "[gdn for x in y]": "expected a block",
    "gdn(**{})": "not part of the notation",
    "gdn(conv=[1])": "an option's value",
    "gdn\nfox": "one line",
    "(" * 5000 + "gdn" + ")" * 5000: "10,000|nested too deeply",
    "é + gnd": "unknown block",
}


@pytest.mark.parametrize("text", sorted(WRONG), ids=lambda t: t[:20].replace("\n", " "))
def test_what_is_wrong_is_one_sentence_that_points_at_the_spot(text: str) -> None:
    with pytest.raises(ScheduleError, match=WRONG[text]):
        parse(text)


def test_the_caret_stands_under_the_offending_word() -> None:
    with pytest.raises(ScheduleError) as caught:
        parse("3*(gdn, swiglu) + (fxo, swiglu)")
    _, shown, caret = str(caught.value).splitlines()
    assert shown[caret.index("^") :].startswith("fxo")


def test_a_variable_named_like_a_block_is_refused() -> None:
    with pytest.raises(ScheduleError, match="named like a block"):
        parse("gdn", variables={"gdn": 3})


@pytest.mark.parametrize("value", [3.0, "3", True, None, "nope"])
def test_a_count_is_a_whole_number_and_nothing_else(value: object) -> None:
    with pytest.raises(ScheduleError, match="whole number"):
        parse("r*gdn", variables={"r": value})  # pyright: ignore[reportArgumentType]
