"""One width solved: the nearest of all, by the cost of what is built, or one sentence that it cannot be."""

import contextlib
import itertools
import random
import typing
from fractions import Fraction

import pytest
import torch

from blocks import BLOCKS
from blocks.base import Block, Shape
from blocks.cost import flops_per_token, params_by_part, state_size
from blocks.model import LanguageModel
from blocks.schedule import Schedule, parse, show
from sweeps.match import Cost, Goal, Knob, MatchError, costs, knob, match, nearest

SHAPE = Shape(dim=48, heads=4)
LENGTH = 70
VOCAB = 11


def width_knobs() -> list[tuple[Cost, Knob]]:
    """Every numeric option of the registry that changes a cost, and dim."""
    found: list[tuple[Cost, Knob]] = [("params", Knob("", "dim")), ("state", Knob("", "dim"))]
    for name, cost in itertools.product(BLOCKS, ("params", "state")):
        for option in BLOCKS[name].__dataclass_fields__:
            try:
                one = knob(f"{name}.{option}")
            except MatchError:
                continue
            if len({worth for _, worth in values(one, cost)}) > 1:
                found.append((cost, one))
    return found


def values(one: Knob, cost: Cost, widest: int = 40) -> list[tuple[int, int]]:
    """Every width of a knob that can be had, and what one block of that width costs."""
    found = []
    kind = typing.get_type_hints(BLOCKS[one.block])[one.option]
    for width in range(1, widest):
        value = width / SHAPE.dim if kind is float else width
        with contextlib.suppress(ValueError):
            block = parse(f"{one.block}({one.option}={value!r})")[0][0]
            found.append((width, costs(((block,),), SHAPE, LENGTH)[cost]))
    return found


def built(schedule: Schedule, shape: Shape) -> int:
    """Parameters of the real model, without embedding and head."""
    with torch.device("meta"):
        model = LanguageModel(schedule, shape, VOCAB)
    return sum(p.numel() for p in model.parameters()) - 2 * VOCAB * shape.dim


def drawn(rng: random.Random, wanted: str = "") -> Schedule:
    """A random schedule of a few layers; one has the block ``wanted``."""
    mixers = [name for name, cls in BLOCKS.items() if cls().role != "channel"]
    channels = [name for name, cls in BLOCKS.items() if cls().role == "channel"]
    layers = [f"({rng.choice(mixers)}, {rng.choice(channels)})" for _ in range(rng.randint(1, 5))]
    return parse(" + ".join([*layers, *([wanted] * rng.randint(1, 3) if wanted else [])]))


def goal_of(cost: Cost, target: Schedule | int, *by: Knob | str, within: str = "0.01") -> Goal:
    number = target if isinstance(target, int) else costs(target, SHAPE, LENGTH)[cost]
    assert cost != "flops"
    knobs = tuple(knob(one) if isinstance(one, str) else one for one in by)
    return Goal(
        cost=cost, target=Fraction(number), whose="x", by=knobs, within=Fraction(within), length=LENGTH
    )


def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


def test_the_registry_has_the_widths_that_one_would_name() -> None:
    names = {(cost, str(one)) for cost, one in width_knobs()}
    for name in ("swiglu.expand", "sparse.expand", "mlp.expand", "gdn.expand_k", "gla.rank", "attn.kv_heads"):
        assert ("params", name) in names
    for name in ("gdn.expand_v", "genesis_gla.expand_k", "attn.window", "fox.kv_heads", "dim"):
        assert ("state", name) in names
    assert not names & {("params", "sparse.k_ratio"), ("params", "attn.window"), ("state", "swiglu.expand")}


@pytest.mark.parametrize(("cost", "one"), width_knobs(), ids=lambda one: str(one))
def test_a_match_holds_on_what_is_built_or_is_refused(cost: Cost, one: Knob) -> None:
    rng = seeded()
    for _ in range(12):
        mine, other = drawn(rng, one.block), drawn(rng)
        goal = goal_of(cost, other, one, within=rng.choice(["0.001", "0.01", "0.1"]))
        try:
            done, shape, told = match(mine, SHAPE, goal)
        except MatchError as exc:
            assert exc.miss > 0 and "\n" not in str(exc) and str(exc).count(". ") == 0
            continue
        now = built(done, shape) if cost == "params" else state_size(done, shape, LENGTH)
        assert abs(now - goal.target) <= goal.within * goal.target
        assert told.now == now
        # The text alone says it all, matching again changes nothing, and only the knob was turned.
        assert parse(show(done)) == done
        assert match(done, shape, goal) == (done, shape, match(done, shape, goal)[2])
        assert match(done, shape, goal)[2].by == ""
        turned = [a for x, y in zip(mine, done, strict=True) for a, b in zip(x, y, strict=True) if a != b]
        assert all(isinstance(block, BLOCKS.get(one.block, ())) for block in turned)


OPTIONS = [(cost, one) for cost, one in width_knobs() if one.block]
"""Without ``dim``, which is no option of a block."""


@pytest.mark.parametrize(("cost", "one"), OPTIONS, ids=lambda one: str(one))
def test_costs_never_fall_with_a_width_and_the_nearest_is_found(cost: Cost, one: Knob) -> None:
    rng, worth = seeded(), values(one, cost)
    assert [c for _, c in worth] == sorted(c for _, c in worth)
    schedule = (parse(one.block)[0],)
    for target in rng.sample(range(1, worth[-1][1] + 2), 10):
        best = min(abs(c - target) for _, c in worth)
        try:
            told = match(schedule, SHAPE, goal_of(cost, target, one, within="0"))[2]
            assert told.now == target and best == 0
        except MatchError as exc:
            assert exc.miss == pytest.approx(best / target) or "brings it nearer" in str(exc)


def test_the_search_finds_what_trying_everything_finds() -> None:
    rng = seeded()
    for _ in range(400):
        widest = rng.randint(1, 60)
        had = sorted(rng.sample(range(1, widest + 1), rng.randint(0, widest)))
        steps = itertools.accumulate(rng.choice([0, 1, 7, 50]) for _ in had)
        table = dict(zip(had, steps, strict=True))
        target = Fraction(rng.randint(1, 400))
        found = nearest(table.get, target, widest, widest, "x")
        assert (found is None) == (not table)
        if found is not None:
            assert abs(found[1] - target) == min(abs(cost - target) for cost in table.values())
            assert table[found[0]] == found[1]


def test_a_cost_that_falls_is_refused() -> None:
    with pytest.raises(MatchError, match="does not grow steadily with x"):
        nearest(lambda width: 100 - width, Fraction(90), 50, 1, "x")
    with pytest.raises(MatchError, match="does not grow steadily with x"):
        nearest(lambda width: width % 32, Fraction(20), 1000, 1, "x")


def test_costs_are_those_of_the_model_without_its_vocabulary() -> None:
    rng = seeded()
    for _ in range(20):
        schedule = drawn(rng)
        found = costs(schedule, SHAPE, LENGTH)
        assert found["params"] == built(schedule, SHAPE) == sum(params_by_part(schedule, SHAPE, 0).values())
        assert found["state"] == state_size(schedule, SHAPE, LENGTH)
        assert found["flops"] == flops_per_token(schedule, SHAPE, 0, LENGTH)


def test_what_is_within_the_tolerance_is_left_alone_to_the_last_scalar() -> None:
    schedule = parse("2*(gdn, swiglu(expand=1.03))")
    have = costs(schedule, SHAPE, LENGTH)["params"]
    told = match(schedule, SHAPE, goal_of("params", have, "swiglu.expand", within="0"))
    assert told[0] == schedule and told[2].by == ""
    # 1 % of a hundred is one, and not a bit more: no rounding decides.
    edge = goal_of("params", 100, "dim")
    assert [edge.is_met(cost) for cost in (98, 99, 101, 102)] == [False, True, True, False]


def test_of_several_widths_the_first_that_comes_within_counts() -> None:
    window, target = parse("attn(window=9)"), costs(parse("attn(window=21)"), SHAPE, LENGTH)["state"]
    told = match(window, SHAPE, goal_of("state", target, "gdn.expand_v", "attn.window", "dim"))[2]
    assert (told.by, told.before, told.after, told.now) == ("attn.window", (9,), 21, target)
    none = goal_of("state", target, "gdn.expand_v", "swiglu.expand")
    with pytest.raises(MatchError, match=r"it has no gdn and it has no swiglu$"):
        match(window, SHAPE, none)
    with pytest.raises(MatchError, match=r"no value of swiglu.expand brings it nearer$"):
        match(parse("(attn, swiglu)"), SHAPE, goal_of("state", target, "swiglu.expand"))


def test_a_width_that_is_the_default_is_spelled_as_the_default() -> None:
    shape, plain = Shape(dim=32, heads=2), parse("(gdn, swiglu)")
    target = costs(plain, shape, LENGTH)["params"]
    done = match(parse("(gdn, swiglu(expand=1.0))"), shape, goal_of("params", target, "swiglu.expand"))[0]
    assert done == plain


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("expand", "it must be dim, or an option of a block"),
        ("swigluu.expand", "did you mean 'swiglu'"),
        ("swiglu.expnd", "did you mean 'expand'"),
        ("sparse.mask", "mask is no number"),
        ("gdn.gate", "gate is no number"),
        ("", "it must be dim"),
    ],
)
def test_what_is_no_width_is_named(text: str, what: str) -> None:
    with pytest.raises(MatchError, match=what):
        knob(text)


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(MatchError, match="to which nothing can be brought"):
        goal_of("state", parse("swiglu"), "dim")


def test_a_block_of_the_users_own_is_matched_like_any() -> None:
    class Mine(BLOCKS["swiglu"]):  # pyright: ignore[reportGeneralTypeIssues]
        pass

    table: dict[str, type[Block]] = {**BLOCKS, "mine": Mine}
    goal = Goal(
        cost="params",
        target=Fraction(costs(parse("(gdn, swiglu)"), SHAPE, LENGTH)["params"]),
        whose="x",
        by=(knob("mine.expand", table),),
        within=Fraction("0.02"),
        length=LENGTH,
    )
    done, _, told = match(parse("(gdn, mine(expand=0.5))", table), SHAPE, goal, table)
    assert told.by == "mine.expand" and goal.is_met(told.now)
    assert parse(show(done, table), table) == done
