"""Laws of what stands around the layers: every design keeps the plain model's, and starts as it says."""

from __future__ import annotations

import math

import pytest
import torch

from blocks.base import OptionError, Shape
from blocks.cost import flops_per_token, params_by_part, state_size
from blocks.design import PLAIN, Design, DesignError, design_of, show
from blocks.inputs import INPUTS
from blocks.model import LanguageModel, StateError
from blocks.mup import groups
from blocks.residual import RESIDUAL, pairs
from blocks.schedule import parse
from blocks.values import VALUES, Embedding

SHAPE = Shape(dim=32, heads=2)
MIXED = "2*(gdn, swiglu) + (fox, mlp) + (attn, sparse) + gla"
VOCAB = 11
GOLF = design_of(
    "bigram(buckets=50, dim=8) + norm + smear",
    "x0_mix + unet + ln_scale + branch_scale",
    "embedding(dim=8)",
    norms="bare",
    softcap=30.0,
    init="orthogonal",
)
DESIGNS = {
    "plain": PLAIN,
    **{name: Design(inputs=(INPUTS[name](),)) for name in INPUTS},
    **{name: Design(residual=(RESIDUAL[name](),)) for name in RESIDUAL},
    "bare": Design(norms="bare"),
    "softcap": Design(softcap=5.0),
    "orthogonal": Design(init="orthogonal"),
    "values": Design(values=Embedding(dim=8)),
    "golf": GOLF,
}

VALUED = (
    "2*(attn(kv_heads=1, qk_gain=1.5, exclusive=True, values=True), mlp) + (gated_attn(values=True), mlp)"
)
"""A schedule whose blocks ask for two widths of values."""


def text_of(design: Design) -> str:
    return MIXED if design.values is None else VALUED


each_design = pytest.mark.parametrize("design", list(DESIGNS.values()), ids=list(DESIGNS))


def build(
    design: Design, text: str | None = None, drift: float = 0.1, mup: int | None = None
) -> LanguageModel:
    """A model in float64 some way from its start, so that no part of it is one that does nothing."""
    torch.manual_seed(0)
    schedule = parse(text or text_of(design))
    model = LanguageModel(schedule, SHAPE, VOCAB, design=design, mup=mup).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += drift * torch.randn_like(parameter)
    return model


def tokens(length: int, rows: int = 2) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


def loss_of(model: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    logits, _ = model(ids[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def test_the_plain_design_is_the_model_without_one() -> None:
    torch.manual_seed(0)
    without = LanguageModel(parse(MIXED), SHAPE, VOCAB)
    torch.manual_seed(0)
    plain = LanguageModel(parse(MIXED), SHAPE, VOCAB, design=design_of())
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in without.named_parameters()]
    assert torch.equal(plain(tokens(9))[0], without(tokens(9))[0])


@each_design
@pytest.mark.parametrize("cuts", [(1,) * 9, (4, 5)])
def test_decoding_in_pieces_equals_one_pass(design: Design, cuts: tuple[int, ...]) -> None:
    model, ids = build(design), tokens(9)
    whole, _ = model(ids)
    state, parts = None, []
    for piece in ids.split(cuts, dim=1):
        logits, state = model(piece, state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-8, rtol=1e-8)


@each_design
def test_no_output_hangs_on_a_later_token(design: Design) -> None:
    model, ids = build(design), tokens(9)
    changed = ids.clone()
    changed[:, 5:] = (changed[:, 5:] + 3) % VOCAB
    before, after = model(ids)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :5], after[:, :5], atol=1e-12, rtol=0)
    assert (before[:, 5:] - after[:, 5:]).abs().amin() > 0


@each_design
def test_packed_documents_are_each_alone(design: Design) -> None:
    model, ids = build(design), tokens(12)
    lengths = (5, 1, 6)
    segments = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).expand(2, -1)
    packed, state = model(ids, context={"segments": segments})
    alone = torch.cat([model(piece)[0] for piece in ids.split(lengths, dim=1)], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-10, rtol=1e-10)
    assert state == ()


@each_design
def test_costs_by_formula_are_those_of_what_is_built(design: Design) -> None:
    model, schedule = build(design), parse(text_of(design))
    parts = params_by_part(schedule, SHAPE, VOCAB, design=design)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    _, state = model(tokens(9))
    held = sum(
        tensor.numel() // tensor.shape[0]
        for layer in state
        for part in layer
        for tensor in part.values()
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    )
    assert held == state_size(schedule, SHAPE, 9, design)
    more = flops_per_token(schedule, SHAPE, VOCAB, 9, design) - flops_per_token(schedule, SHAPE, VOCAB, 9)
    values = design.values.flops([16, 32]) if design.values else 0
    assert more == values + sum(part.flops(SHAPE) for part in design.inputs)


@each_design
@pytest.mark.parametrize("mup", [None, 16])
def test_every_parameter_is_in_one_group(design: Design, mup: int | None) -> None:
    model = build(design, mup=mup)
    names = [name for group in groups(model) for name in group.names]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


@each_design
def test_nothing_is_dead(design: Design) -> None:
    """After one step from its start every parameter has a gradient: of no product both factors are zero."""
    model, ids = build(design, drift=0.0), tokens(33, rows=8)
    names = {name for name, _ in model.named_parameters()}
    with torch.no_grad():
        start = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for _ in range(2):
        loss_of(model, ids).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad  # pyright: ignore[reportOperatorIssue]
                parameter.grad = None
    moved = {name for name, now in model.named_parameters() if not torch.equal(now, start[name])}
    assert moved == names


def test_a_table_of_bigrams_learns_from_the_first_step() -> None:
    model = build(Design(inputs=(INPUTS["bigram"](),)), drift=0.0)
    loss_of(model, tokens(9)).backward()
    table = model.get_parameter("inputs.parts.0.table.weight")
    assert not table.any() and table.grad is not None and table.grad.abs().max() > 0


def test_bigrams_are_hashed_as_golf_does() -> None:
    design = Design(inputs=(INPUTS["bigram"](buckets=20, dim=4),))
    inputs, ids = build(design).inputs, tokens(7)
    assert inputs is not None
    part, zeros = inputs.parts[0], torch.zeros(2, 7, SHAPE.dim, dtype=torch.float64)
    found, _ = inputs(zeros, ids)
    for row in range(2):
        for at in range(7):
            new, old = int(ids[row, at]), int(ids[row, at - 1])
            bucket = 19 if at == 0 else (36313 * new ^ 27191 * old) % 19
            wanted = part.scale * part.widen.weight @ part.table.weight[bucket]
            torch.testing.assert_close(found[row, at], wanted)


def test_smear_blends_with_the_token_before() -> None:
    inputs = build(Design(inputs=(INPUTS["smear"](),))).inputs
    assert inputs is not None
    x = torch.randn(2, 5, SHAPE.dim, dtype=torch.float64)
    share = inputs.parts[0].gate.sigmoid()
    found, _ = inputs(x, tokens(5))
    for at in range(5):
        before = x[:, at - 1] if at else torch.zeros_like(x[:, 0])
        torch.testing.assert_close(found[:, at], (1 - share) * x[:, at] + share * before)


def test_the_second_half_takes_up_the_first_from_its_end() -> None:
    assert pairs(11) == {5: 4, 6: 3, 7: 2, 8: 1, 9: 0}
    assert pairs(4) == {2: 1, 3: 0}
    assert pairs(4, neighbours=False) == {3: 0}
    assert pairs(1) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [("x0_mix", None), ("branch_scale", None), ("unet", "skip_LD"), ("unet(start=0.0)", None)],
)
def test_parts_of_the_residual_begin_as_the_plain_stack(text: str, value: str | None) -> None:
    joined = build(design_of(residual=text), drift=0.0)
    if value is not None:
        joined.get_parameter(f"stack.topology.{value}").data.zero_()
    plain = build(PLAIN, drift=0.0)
    torch.testing.assert_close(joined(tokens(9))[0], plain(tokens(9))[0], atol=0, rtol=0)


def test_layers_start_from_what_was_before_them() -> None:
    """x <- x + w y of the layer that is handed up, then x <- a x + b x0, as golf has it, for odd L."""
    model = build(design_of(residual="x0_mix + unet"), "3*gdn + fox + gla", drift=0.3)
    joined, layers = model.stack.topology, model.stack.layers
    assert joined is not None
    x0 = x = torch.randn(2, 6, SHAPE.dim, dtype=torch.float64)
    outputs: list[torch.Tensor] = []
    for layer, part in enumerate(layers):
        if layer in (2, 3):
            x = x + joined.skip_LD[layer - 2] * outputs[3 - layer]
        x = joined.stay_LD[layer] * x + joined.again_LD[layer] * x0
        x, _ = part[0](x)  # pyright: ignore[reportIndexIssue]
        outputs.append(x)
    torch.testing.assert_close(model.stack(x0)[0], x)


def test_tables_of_inputs_decay_and_vectors_do_not() -> None:
    model = build(GOLF)
    decays = {name: group.decays for group in groups(model) for name in group.names}
    assert decays["embedding.weight"] and decays["head.weight"]
    assert decays["inputs.parts.0.table.weight"] and decays["inputs.parts.0.widen.weight"]
    vectors = (
        "inputs.parts.0.scale",
        "inputs.parts.2.gate",
        "stack.topology.skip_LD",
        "stack.topology.stay_LD",
    )
    assert not any(decays[name] for name in vectors)


def test_parallel_blocks_read_the_same_and_are_added() -> None:
    model = build(Design(residual=(RESIDUAL["parallel"](),)), "(gdn, swiglu)")
    x = torch.randn(2, 5, SHAPE.dim, dtype=torch.float64)
    first, second = model.stack.parts()
    wanted = first(x)[0] + second(x)[0] - x
    torch.testing.assert_close(model.stack(x)[0], wanted)


def test_deeper_layers_read_smaller_inputs() -> None:
    model = build(Design(residual=(RESIDUAL["ln_scale"](),), norms="bare"), "9*swiglu")
    x = torch.randn(2, 5, SHAPE.dim, dtype=torch.float64)
    for layer, part in enumerate(model.stack.parts()):
        wanted = x + part["block"](part["norm"](x) / math.sqrt(layer + 1))[0]
        torch.testing.assert_close(part(x)[0], wanted)


def test_an_orthogonal_stack_begins_as_the_identity_with_orthogonal_matrices() -> None:
    model = build(Design(init="orthogonal"), drift=0.0)
    x = torch.randn(2, 9, SHAPE.dim, dtype=torch.float64)
    torch.testing.assert_close(model.stack(x)[0], x, atol=0, rtol=0)
    seen = 0
    for part in model.stack.parts():
        for layer in part["block"].modules():
            if isinstance(layer, torch.nn.Linear) and layer is not getattr(part["block"], "out", None):
                rows, columns = layer.weight.shape
                wide = layer.weight if rows <= columns else layer.weight.T * math.sqrt(columns / rows)
                eye = torch.eye(len(wide), dtype=torch.float64)
                torch.testing.assert_close(wide @ wide.T, eye, atol=1e-5, rtol=0)
                seen += 1
    assert seen > 10


def test_a_softcap_bounds_logits_and_leaves_small_ones() -> None:
    capped, plain = build(Design(softcap=0.5)), build(PLAIN)
    high, low = capped(tokens(9))[0], plain(tokens(9))[0]
    assert high.abs().max() < 0.5 < low.abs().max()
    torch.testing.assert_close(high, 0.5 * torch.tanh(low / 0.5))


def test_designs_are_written_and_read() -> None:
    inputs, residual = show(GOLF.inputs, INPUTS), show(GOLF.residual, RESIDUAL)
    assert inputs == "bigram(buckets=50, dim=8) + norm + smear"
    assert residual == "x0_mix + unet + ln_scale + branch_scale"
    values = "embedding(dim=8)"
    assert design_of(inputs, residual, values, norms="bare", softcap=30.0, init="orthogonal") == GOLF
    assert GOLF.values is not None and show((GOLF.values,), VALUES) == "embedding(dim=8)"
    assert show((), INPUTS) is None and design_of() == PLAIN


@pytest.mark.parametrize(
    ("inputs", "residual", "words"),
    [
        ("bigrm", None, ("bigrm", "did you mean 'bigram'")),
        ("bigram(size=3)", None, ("no option 'size'", "buckets")),
        ("bigram(buckets=1)", None, ("1 buckets", "at least 2")),
        ("bigram(3)", None, ("expected the name",)),
        ("2*norm", None, ("expected the name",)),
        ("", None, ("empty",)),
        (None, "unet + unet", ("twice",)),
        (None, "skip", ("unknown residual part 'skip'",)),
    ],
)
def test_what_is_no_design_is_refused_in_a_sentence(
    inputs: str | None, residual: str | None, words: tuple[str, ...]
) -> None:
    with pytest.raises((DesignError, OptionError)) as raised:
        design_of(inputs, residual)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_values_belong_to_a_model_that_embeds_them() -> None:
    with pytest.raises(OptionError, match="only blocks ask for it"):
        build(PLAIN, VALUED)
    with pytest.raises(OptionError, match="only the model has it"):
        build(DESIGNS["values"], MIXED)
    block = build(DESIGNS["values"]).stack.parts()[0]["block"]
    with pytest.raises(OptionError, match="this model has none"):
        block(torch.zeros(1, 2, SHAPE.dim, dtype=torch.float64))
    with pytest.raises(DesignError, match="one at most"):
        design_of(values="embedding + embedding")


def test_embedded_values_are_added_to_each_blocks_own() -> None:
    """Those of the token alone, widened to the block's, times its share: as if the weights had them."""
    model, ids = build(DESIGNS["values"], "attn(values=True)"), tokens(5)
    assert model.values is not None
    block, narrow = model.stack.parts()[0]["block"], model.values.scale * model.values.table(ids)
    x = torch.randn(2, 5, SHAPE.dim, dtype=torch.float64)
    context: dict[str, object] = {}
    model.values(ids, context)
    found, state = block(x, None, context)
    values = block.v(x) + block.share * narrow @ model.values.widen["32"].weight.T
    torch.testing.assert_close(state["v"].flatten(2), values)
    plain = build(PLAIN, "attn").stack.parts()[0]["block"]
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if k != "share"})
    assert (found - plain(x)[0]).abs().max() > 1e-3


def test_a_state_of_another_model_is_refused() -> None:
    smeared, plain = build(DESIGNS["smear"]), build(PLAIN)
    ids = tokens(3)
    for model, other in ((smeared, plain), (plain, smeared)):
        _, state = other(ids)
        with pytest.raises(StateError, match="layers"):
            model(ids, state)
