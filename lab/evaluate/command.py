"""``lab eval``: what a trained model can do, from its file alone."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.evaluate.options import (
    ChunkOption,
    DataOption,
    ExamplesOption,
    FitOption,
    FreshOption,
    GolfOption,
    IncludeOption,
    KernelOption,
    LimitOption,
    SetOption,
    StrideOption,
    SyntheticOption,
    TasksOption,
    TextOption,
    TokenizerOption,
    TttContaminatedOption,
    TttOption,
    WholeOption,
    WindowOption,
)
from lab.generate import ModelArgument, model_file
from lab.terminal import BlocksOption, CommandError, JsonOption, emit, known_blocks, say

if TYPE_CHECKING:
    from blocks.model import LanguageModel
    from lab.evaluate.bits import Passes, Windows
    from lab.evaluate.measure import Forms
    from lab.evaluate.text import Tokenizer
    from lab.model.form import Spec

__all__ = ["evaluate"]

GOLF_STRIDE = 64


def evaluate(
    model: ModelArgument,
    text: TextOption = None,
    data: DataOption = None,
    tokenizer: TokenizerOption = None,
    limit: LimitOption = None,
    window: WindowOption = None,
    stride: StrideOption = None,
    whole: WholeOption = False,
    chunk: ChunkOption = None,
    ttt: TttOption = False,
    ttt_contaminated: TttContaminatedOption = False,
    golf: GolfOption = False,
    set_: SetOption = None,
    fresh: FreshOption = 0.1,
    synthetic: SyntheticOption = None,
    fit: FitOption = None,
    tasks: TasksOption = None,
    include: IncludeOption = None,
    examples: ExamplesOption = None,
    kernel: KernelOption = "auto",
    blocks: BlocksOption = None,
    json: JsonOption = False,
) -> None:
    """Say what a trained model can do: bits per byte of a text, recall in context, tasks of lm-eval-harness.

    Without --synthetic and --tasks, or with a text, it is bits per byte: nats of every token of the text,
    each scored once, by ln 2 and the bytes of the text; the loss by context beside it. --synthetic asks a
    task in printable characters of the model's own, without training, and with --fit after some.

    Examples:
      lab eval models/tiny
      lab eval model.safetensors --text book.txt --window 2048 --stride 64 --json
      lab eval model.safetensors --data corpus --whole
      lab eval model.safetensors --text book.txt --ttt --set chunk=4096 --set lr=1e-3
      lab eval model.safetensors --golf --limit 1000000
      lab eval model.safetensors --synthetic recalls --fit 200
      lab eval model.safetensors --tasks genesis
    """
    text_wanted = text is not None or data is not None or not (synthetic or tasks)
    _check(text, data, window, stride, whole, chunk, ttt or ttt_contaminated or golf, bool(set_), fresh)
    _check_rest(fit, synthetic, include, tasks, kernel)

    from lab.evaluate import harness, page
    from lab.model.spec import read_model, trained_on
    from sweeps.run import chosen_kernel

    path = model_file(model)
    names = [] if tasks is None else harness.task_names(tasks)
    if names:
        harness.check_installed()
    opened, spec = read_model(path, chosen_kernel(kernel), known_blocks(blocks))  # pyright: ignore
    document: dict[str, Any] = {"model": str(path), "name": spec.name}
    document["trained_on"] = [asdict(one) for one in trained_on(path)]
    coded = _tokenizer(spec, tokenizer)
    if text_wanted or ttt or ttt_contaminated or golf:
        how = _how(spec, window, stride, whole, chunk, golf)
        forms = _forms(ttt, ttt_contaminated, golf, set_ or [])
        document |= _texts(opened, spec, coded, (text, data), how, forms, fresh, limit, blocks)
    if synthetic:
        document["synthetic"] = _synthetic(
            opened, spec, coded, synthetic, fit, examples or 256, kernel, blocks
        )
    if names:
        found = harness.run(
            opened, coded, names, window=window or spec.data.length, examples=examples, include=include
        )
        document |= harness.document(found)
    emit(document) if json else say(page.page(document))


def _check(
    text: Path | None,
    data: str | None,
    window: int | None,
    stride: int | None,
    whole: bool,
    chunk: int | None,
    learning: bool,
    settings: bool,
    fresh: float,
) -> None:
    """Refuse options that do not go together. Raises CommandError."""
    if text is not None and data is not None:
        raise CommandError("--text and --data are both given; one text is scored")
    if whole and (window is not None or stride is not None):
        raise CommandError("--whole reads the text in one pass; --window and --stride belong to windows")
    if chunk is not None and not whole:
        raise CommandError("--chunk belongs to --whole; windows have --window and --stride")
    if whole and learning:
        raise CommandError(
            "--whole carries a state on, and one of weights that have changed since means nothing; "
            "test-time training goes with windows"
        )
    if settings and not learning:
        raise CommandError(
            "--set gives settings of test-time training; add --ttt, --ttt-contaminated or --golf"
        )
    if not 0 < fresh < 1:
        raise CommandError(f"--fresh is {fresh:g}; it must be above 0 and below 1, such as 0.1")


def _check_rest(
    fit: int | None, synthetic: list[str] | None, include: Path | None, tasks: str | None, kernel: str
) -> None:
    """Likewise, of what is no text."""
    if fit is not None and not synthetic:
        raise CommandError("--fit belongs to --synthetic TASK; give both")
    if include is not None and tasks is None:
        raise CommandError("--include belongs to --tasks NAMES; give both")
    if kernel not in ("auto", "torch", "c"):
        raise CommandError(f"--kernel is {kernel!r}; known are auto, torch and c")


def _tokenizer(spec: Spec, named: str | None) -> Tokenizer:
    from lab.data.tokens import open_tokenizer

    coded = open_tokenizer(named or spec.data.tokenizer)
    if coded.vocab > spec.model.vocab and coded.name != "bytes":
        raise CommandError(
            f"the tokenizer {coded.name} has {coded.vocab:,} ids and the model {spec.model.vocab:,}; give "
            "the one it was trained with by --tokenizer FILE"
        )
    return coded


def _how(
    spec: Spec, window: int | None, stride: int | None, whole: bool, chunk: int | None, golf: bool
) -> Windows | Passes:
    from lab.evaluate.bits import Passes, Windows

    if whole:
        return Passes(chunk or spec.data.length)
    size = window or spec.data.length
    usual = min(GOLF_STRIDE, size) if golf else max(1, size // 2)
    return Windows(size, usual if stride is None else stride)


def _forms(ttt: bool, contaminated: bool, golf: bool, overrides: list[str]) -> Forms:
    from lab.evaluate.adaptation import GOLF_CONTAMINATED, GOLF_SCORE_FIRST, Adaptation, adaptation
    from lab.evaluate.measure import Forms

    first, then = (GOLF_SCORE_FIRST, GOLF_CONTAMINATED) if golf else (Adaptation(), Adaptation())
    return Forms(
        adaptation(overrides, first) if ttt or golf else None,
        adaptation(overrides, then) if contaminated or golf else None,
    )


def _texts(
    model: LanguageModel,
    spec: Spec,
    coded: Tokenizer,
    asked: tuple[Path | None, str | None],
    how: Windows | Passes,
    forms: Forms,
    fresh: float,
    limit: int | None,
    blocks: Path | None,
) -> dict[str, Any]:
    from lab.evaluate.bits import Windows
    from lab.evaluate.measure import adapted, plain
    from lab.evaluate.sources import source_of
    from lab.model.spec import schedule_of

    sources = source_of(spec, coded, *asked)
    if forms.score_first is None and forms.contaminated is None:
        return {"texts": [plain(model, source, how, limit) for source in sources]}
    if len(sources) > 1:
        listed = ", ".join(source.name for source in sources)
        raise CommandError(
            f"the model was trained on several sources ({listed}); choose one by --data or --text"
        )
    assert isinstance(how, Windows)
    schedule = schedule_of(spec, known_blocks(blocks))
    return {"ttt": adapted(model, schedule, sources[0], how, forms, fresh, limit)}


def _synthetic(
    model: LanguageModel,
    spec: Spec,
    coded: Tokenizer,
    wanted: list[str],
    steps: int | None,
    examples: int,
    kernel: str,
    blocks: Path | None,
) -> list[dict[str, Any]]:
    from lab.evaluate.symbols import GROUPS, ask, check, fit_both, symbols, unasked
    from lab.model.spec import schedule_of
    from sweeps.run import chosen_kernel
    from synthetics.fit import Training
    from synthetics.protocol import parse_task, show_task

    single = {parse_task(text) for text in wanted if text not in GROUPS}
    # What two words stand for is asked once.
    tasks = list(dict.fromkeys(parse_task(one) for text in wanted for one in GROUPS.get(text, (text,))))
    reasons = {task: unasked(task, training=steps is not None) for task in tasks}
    for task in tasks:
        if task in single:
            check(task, training=steps is not None)
        if reasons[task] is None:
            symbols(task, coded, spec.model.vocab)
    found: list[dict[str, Any]] = []
    for task in tasks:
        row: dict[str, Any] = {"task": show_task(task)}
        if reasons[task] is not None:
            found.append(row | {"not_asked": reasons[task]})
            continue
        if task.lagged:
            row |= asdict(ask(model, coded, task, examples))
        if steps is not None:
            training = Training(
                steps=steps,
                eval_every=max(1, steps // 8),
                eval_examples=examples,
                kernel=chosen_kernel(kernel),  # pyright: ignore[reportArgumentType]
            )
            schedule = schedule_of(spec, known_blocks(blocks))
            trained, scratch = fit_both(model, schedule, spec, coded, task, training, seed=0)
            row["fit"] = {"steps": steps, "trained": asdict(trained), "scratch": asdict(scratch)}
        found.append(row)
    return found
