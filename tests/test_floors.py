"""The five floors: the import contracts of pyproject.toml, and what really is imported at run time."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_import_contracts_are_kept() -> None:
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken." in done.stdout


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after ``statement``."""
    program = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


ANALYSIS = sorted(path.stem for path in (ROOT / "analysis").glob("[!_]*.py"))


@pytest.mark.parametrize(
    "statement", ["import sweeps.results", f"import {', '.join('analysis.' + m for m in ANALYSIS)}"]
)
def test_reading_results_loads_no_torch(statement: str) -> None:
    assert not {"torch", "optuna", "synthetics", "blocks"} & modules_after(statement)


@pytest.mark.parametrize("package", ["lab", "analysis", "sweeps"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    assert not {"torch", "optuna", "polars", "plotly"} & modules_after(f"import {package}")


def test_blocks_load_torch_and_no_floor_above() -> None:
    loaded = modules_after("import blocks.model, blocks.cost, blocks.user")
    assert "torch" in loaded
    assert not {"synthetics", "sweeps", "analysis", "lab", "optuna", "polars", "pydantic"} & loaded
