"""The house: sizes of files, what the README names, pinned versions, the wheel."""

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from blocks.kernels.native import SOURCES
from sweeps.packs import KNOWN
from sweeps.recipe import load, loads, shipped

ROOT = Path(__file__).parents[1]
PACKAGES = ("lab", "blocks", "synthetics", "sweeps", "analysis")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

LONG_FILES: dict[str, str] = {}
"""Files above 400 lines, each with the reason why it is one thing."""


def sources() -> list[Path]:
    return sorted(path for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py"))


def test_no_file_is_longer_than_400_lines_without_a_reason() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in sources()}
    assert {name for name, length in lengths.items() if length > 400} == set(LONG_FILES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed_and_says_what_it_is(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
    assert (ROOT / package / "__init__.py").read_text(encoding="utf-8").startswith('"""')


def test_the_readme_names_every_folder_and_every_shipped_recipe() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    folders = {name.partition("/")[0] for name in tracked if "/" in name and not name.startswith(".")}
    folders |= {*PACKAGES, "tests"}
    assert [folder for folder in sorted(folders) if f"{folder}/" not in README] == []
    assert [name for name in shipped() if f"| `{name}` |" not in README] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_the_tree_of_the_readme_is_the_tree(package: str) -> None:
    tree = README[README.index("## The tree") : README.index("## Reading order")]
    part = re.search(rf"^    {package}/.*\n((?:      .*\n)*)", tree, re.MULTILINE)
    assert part
    modules = {path.stem for path in (ROOT / package).glob("[!_]*.py")}
    missing = {name for name in modules if not re.search(rf"\b{name}\b", part[1])}
    assert missing == set()


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LOG.md",
    "docs/evaluation.md",
    "docs/export.md",
    "docs/genesis.md",
    "docs/mup.md",
    "docs/blocks.md",
    "docs/presets.md",
    "docs/spread.md",
    "docs/train.md",
    "docs/transfer.md",
    "docs/trust.md",
    "benchmarks/README.md",
    "sweeps/known/README.md",
]


@pytest.mark.parametrize("path", PAGES)
def test_links_between_pages_lead_somewhere(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert ((ROOT / path).parent / target).exists(), target
    for name in re.findall(r"`((?:blocks|synthetics|sweeps|analysis|lab|tests)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_pins_are_what_is_installed() -> None:
    # A local label such as +cpu says where a build is from, not which version it is.
    installed = {name: metadata.version(name).partition("+")[0] for name in pins()}
    assert installed == pins()


def test_every_direct_dependency_is_pinned() -> None:
    named = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    direct = {re.match(r"[\w-]+", line)[0].lower() for line in named}  # pyright: ignore[reportOptionalSubscript]
    assert direct == {name.lower() for name in pins()}


def test_the_wheel_holds_the_five_packages_and_what_they_read() -> None:
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == set(PACKAGES)
    # hatchling leaves out what git ignores: everything that a package reads at run time must be kept by git.
    read = [
        *shipped().values(),
        *(ROOT / "analysis").glob("*.css"),
        *(ROOT / "analysis").glob("*.js"),
        *SOURCES,
        *KNOWN.glob("*.parquet"),
        *(ROOT / "lab").rglob("*.yaml"),
        *(ROOT / "lab").rglob("*.parquet"),
        *(ROOT / p / "py.typed" for p in PACKAGES),
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, read)], cwd=ROOT, capture_output=True, text=True
    ).stdout
    assert ignored == ""


def test_the_recipe_that_the_readme_shows_is_the_one_that_make_run_runs() -> None:
    shown = re.search(r"^```yaml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert shown
    assert loads(shown[1], "README.md").model_dump() == load("ratios").model_dump()
