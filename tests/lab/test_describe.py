"""``lab describe``: the figures are those of blocks.cost, and JSON and text say the same."""

import json

import pytest
import torch

from blocks import BLOCKS
from blocks.base import Shape
from blocks.model import LanguageModel
from blocks.schedule import parse, show


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_parameters_are_those_of_the_model_that_would_be_built(name: str, answer) -> None:
    text = f"2*({name}, swiglu) + attn"
    found = json.loads(answer("describe", text, "--dim", 32, "--heads", 2, "--vocab", 11, "--json"))
    with torch.device("meta"):
        model = LanguageModel(parse(text), Shape(dim=32, heads=2), 11)
    params = found["params"]
    assert params["total"] == sum(p.numel() for p in model.parameters())
    assert params["total"] == sum(params.values()) - params["total"]
    assert found["schedule"] == show(parse(text))


def test_counts_and_layers_are_the_realised_ones(answer) -> None:
    found = json.loads(answer("describe", "r*gdn + fox", "--var", "r=6:1", "--depth", 20, "--json"))
    assert found["counts"] == {"linear": 18, "window": 0, "full": 2, "depth": 20}
    assert [layer["blocks"] for layer in found["layers"]] == (["gdn"] * 6 + ["fox"]) * 2 + ["gdn"] * 6
    assert {layer["role"] for layer in found["layers"] if layer["blocks"] == "fox"} == {"full"}


def test_state_is_stated_in_scalars_and_bytes_and_grows_as_the_roles_say(answer) -> None:
    states = {
        text: json.loads(answer("describe", text, "--length", 100, "--json"))["state"]
        for text in ("gdn", "attn(window=64)", "fox")
    }
    for rows in states.values():
        assert [row["length"] for row in rows] == sorted({64, 100, 256, 1024, 4096, 16384, 65536})
        assert all(row["bytes"] == 4 * row["scalars"] for row in rows)
    first, last = ({text: rows[i]["scalars"] for text, rows in states.items()} for i in (0, -1))
    assert last["gdn"] == first["gdn"] and last["attn(window=64)"] == first["attn(window=64)"]
    assert last["fox"] > 500 * first["fox"]


def test_the_page_holds_what_the_document_says(answer) -> None:
    words = ("describe", "2*[3*(gdn, swiglu) + (fox, swiglu)] + mlp", "--length", 512)
    page, found = answer(*words), json.loads(answer(*words, "--json"))
    assert found["schedule"] in page
    assert "---#---#." in page
    assert "9: 6 linear, 0 window, 2 full" in page
    for size in [*found["params"].values(), *(row["scalars"] for row in found["state"])]:
        assert f"{size:,}" in page


@pytest.mark.parametrize(("given", "schedule"), [("r=3", "3*fox"), ("r=3:1", "3*fox"), ("r= 2", "2*fox")])
def test_variables_are_counts_and_ratios(given: str, schedule: str, answer) -> None:
    assert json.loads(answer("describe", "r*fox", "--var", given, "--json"))["schedule"] == schedule


def test_variables_are_options_and_blocks_too(answer) -> None:
    words = ("describe", "(m, sparse(k_ratio=k))", "--var", "m=attn(window=8)", "--var", "k=0.25", "--json")
    assert json.loads(answer(*words))["schedule"] == "(attn(window=8), sparse(k_ratio=0.25))"
