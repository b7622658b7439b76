"""A study as text: what it asks for, what makes two trainings the same, what it refuses."""

import json
from pathlib import Path

import pytest

from lab.model.spec import dump as dump_spec
from lab.model.spec import loads, schedule_of, shape_of
from lab.train.rates import share_at
from lab.transfer import rows
from lab.transfer.form import Study
from lab.transfer.pieces import StudyError, branch_step, dump, load, pieces, row_key, shipped
from sweeps.match import costs
from tests.lab.transfer.small import load_study, write_study


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_study_is_balanced_and_its_schedules_are_of_one_size(name: str) -> None:
    study = load(name)
    found = pieces(study)
    assert len(found) == len(study.schedules) * len(study.sizes) * study.seeds
    size = len(study.schedules)
    for at in range(0, len(found), size):  # every stretch has all schedules, at one size with one seed
        stretch = found[at : at + size]
        assert {one.label for one in stretch} == set(study.schedules)
        assert len({(one.size, one.seed) for one in stretch}) == 1
    for size_name in study.sizes:
        params = [
            costs(schedule_of(spec), shape_of(spec), study.length)["params"]
            for one in found
            if one.size == size_name
            for spec in [one.spec(study.tokens[0])]
        ]
        assert max(params) / min(params) < (1 + study.match.within) / (1 - study.match.within)


def test_all_counts_of_tokens_share_the_rates_before_their_decay(study: Study) -> None:
    piece = pieces(study)[0]
    specs = [piece.spec(tokens).train for tokens in study.tokens]
    longest = [share_at(specs[-1].rate, step, specs[-1].steps) for step in range(1, specs[-1].steps + 1)]
    for tokens, part in zip(study.tokens, specs, strict=True):
        own = [share_at(part.rate, step, part.steps) for step in range(1, part.steps + 1)]
        at = branch_step(study, tokens)
        assert own[:at] == longest[:at] and own[study.warmup - 1] == 1 > own[study.warmup - 2]
        assert own[at:] == sorted(own[at:], reverse=True) and own[-1] < 1
        assert part.steps == tokens // (study.batch * study.length)


def test_a_training_is_the_same_whatever_it_is_called_and_another_with_anything_else(study: Study) -> None:
    spec = pieces(study)[0].spec(study.tokens[0])

    def key(*sets: str) -> str:
        return row_key(loads(dump_spec(spec), overrides=sets), study.scored)

    assert key() == key("name=other") == key("train.save_every=7") == key("train.keep=9")
    others = [
        key("train.seed=1"),
        key("train.optimiser.lr=0.5"),
        key("model.schedule=8*attn"),
        key("data.length=32"),
    ]
    assert len({key(), *others, row_key(spec, 1)}) == 6


def test_a_written_study_is_the_study(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(dump(study), encoding="utf-8")
    assert load(str(path)) == study


WRONG = {
    "kind=model": ("kind is model", "kind: transfer"),
    "recipe=refrence": ("recipe", "did you mean 'reference'"),
    "schedules=[attn, gdn]": ("schedules", "holds 2", "3 or more"),
    "schedules=[attn, gdn, gdn, gdn+fox 3:1]": ("schedules", "twice"),
    "schedules=[attn, gdm, gdn]": ("schedules", "'gdm'", "did you mean 'gdn'"),
    "baseline=gdn+fox 7:1": ("baseline", "'gdn+fox 7:1'", "one of schedules"),
    "schedules=[gdn, gdn+fox 3:1, gdn+fox 6:1]": ("sizes.a", "gdn+fox 6:1", "a depth of at least 7"),
    "match.within=0.0001": ("sizes.a", "raise within"),
    "sizes.a.heads=3": ("sizes.a", "3 heads"),
    "mup=24": ("sizes.a", "24"),
    "tokens=[256, 500]": ("500", "multiple", "= 32"),
    "tokens=[512, 256]": ("tokens", "rise"),
    "tokens=[32, 64]": ("warmup", "is 2 steps"),
    "warmup=7": ("warmup", "is 7 steps"),
    "seeds=0": ("seeds", "at least 1"),
    "seedz=2": ("seedz", "did you mean 'seeds'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_study_is_refused_with_what_is_allowed(wrong: str, data: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path, data)
    with pytest.raises(StudyError) as refused:
        load_study(path, wrong)
    for word in WRONG[wrong]:
        assert word in str(refused.value), str(refused.value)


def test_two_names_of_one_model_are_refused(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "twins.yaml"
    schedules = "schedules: {a: attn, b: attn, c: fox, d: attn(window=4)}"
    schedules = "schedules: {a: attn, b: attn, c: fox, d: attn(window=4)}"
    recipe.write_text(f"name: twins\n{schedules}\ndepth: 4\nshape: {{dim: 16}}\ntasks: [recall]\n")
    path, sets = (
        write_study(tmp_path, data),
        (f"recipe={recipe}", "baseline=a", "match.by=dim", "match.within=0.5"),
    )
    with pytest.raises(StudyError, match="b is the same model as a"):
        load_study(path, *sets, "schedules=[a, b, c, d]")
    assert {one.label for one in pieces(load_study(path, *sets, "schedules=[a, c, d]"))} == {"a", "c", "d"}


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    for name, word in (("transfr", "did you mean 'transfer'"), (str(tmp_path), "this is a directory")):
        with pytest.raises(StudyError, match=word):
            load(name)


def test_a_folder_that_a_study_was_run_in_is_that_study_and_its_rows(
    study: Study, tmp_path: Path, answer, lab
) -> None:
    folder = tmp_path / "transfer"  # also the name of a shipped study
    folder.mkdir()
    (folder / "study.yaml").write_text(dump(study))
    piece = pieces(study)[0]
    row = dict.fromkeys(rows.SCHEMA) | {
        "key": row_key(piece.spec(study.tokens[0]), study.scored),
        "label": piece.label,
        "made": "these sources",
    }
    rows.write(folder, row)
    found = json.loads(answer("transfer", "pack", folder, tmp_path / "packed.parquet", "--json"))
    assert (found["rows"], found["asked"]) == (1, len(pieces(study)) * len(study.tokens))
    other = lab("transfer", "pack", folder, tmp_path / "none.parquet", "--out", tmp_path / "none")
    assert other.code == 2 and "there is no row" in other.err
    refused = lab("transfer", "show", tmp_path)
    assert refused.code == 2 and "a directory without study.yaml" in refused.err


def test_a_study_in_place_of_a_command_is_shown(data: Path, tmp_path: Path, answer) -> None:
    path = write_study(tmp_path, data)
    asked = answer("transfer", "show", path, "--json")
    assert json.loads(asked)["sentence"].startswith("Not yet decided: 0 of 6")
    assert answer("transfer", path, "--json") == asked
