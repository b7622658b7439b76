"""A kernel broken on purpose, so that a test can show that it is found."""

import importlib.util
import sys
from pathlib import Path

import blocks.kernels


def break_kernel(module: str, old: str, new: str, folder: Path) -> None:
    """Load ``blocks.kernels.MODULE`` with ``old``, which stands in it once, replaced by ``new``.

    Triton reads a kernel's source from its file, so the broken one is written to ``folder``. Call it before
    anything imports the module.
    """
    name = f"blocks.kernels.{module}"
    assert name not in sys.modules, f"{name} is imported already"
    source = Path(next(iter(blocks.kernels.__path__)), f"{module}.py").read_text(encoding="utf-8")
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module}"
    path = folder / f"{module}.py"
    path.write_text(source.replace(old, new), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    setattr(blocks.kernels, module, loaded)
    spec.loader.exec_module(loaded)
