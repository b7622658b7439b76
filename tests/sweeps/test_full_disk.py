"""A whole sweep on a disk that fills up: one sentence, everything finished kept, and it goes on with room."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps import results
from sweeps.recipe import loads
from sweeps.study import sweep
from tests.sweeps.machines import SWEEP, TEXT, rows

RUNS = 8

SPACE = "unshare --user --map-root-user --mount sh -e -c"
"""A shell whose mounts are its own and gone with it; where the kernel lets all have such, root or not."""

SCRIPT = """
mount -t tmpfs -o size=130k tmpfs "$1"
"$2" -c "from lab.cli import main; main()" sweep tiny.yaml --runs "$1" --workers 1 2> said || echo "code $?"
cp -r "$1"/tiny full
mount -o remount,size=64m "$1"
"$2" -c "$3" tiny.yaml "$1"/tiny 1 ""
cp -r "$1"/tiny roomy
"""


@pytest.mark.slow
def test_a_full_disk_costs_nothing_but_time(tmp_path: Path) -> None:
    allowed = subprocess.run([*SPACE.split(), "mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True)
    if allowed.returncode:
        pytest.skip(f"no disk of a few kilobytes can be made here: {allowed.stderr.strip()}")
    text = TEXT.replace("seeds: 3", "seeds: 1")
    (tmp_path / "tiny.yaml").write_text(text)
    (tmp_path / "disk").mkdir()
    words = [*SPACE.split(), SCRIPT, "sh", str(tmp_path / "disk"), sys.executable, SWEEP]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("code 2\n")
    said = (tmp_path / "said").read_text()
    sentence = r"error: \S*/disk/tiny: .* \(No space left on device\).*; what is finished is kept.*\n"
    assert re.fullmatch(sentence, said[said.index("error: ") :]) and "Traceback" not in said
    full, roomy = results.stored(tmp_path / "full"), results.stored(tmp_path / "roomy")
    assert 0 < len(full) < len(roomy) == RUNS
    assert all(path.read_bytes() == roomy[key].read_bytes() for key, path in full.items()), "kept as it was"
    assert not list((tmp_path / "full").rglob(".tmp-*")), "nothing half"
    assert f"stored={len(full)}" in done.stdout, "it went on from there"
    sweep(loads(text), tmp_path / "undisturbed" / "tiny", workers=1)
    assert rows(tmp_path / "roomy").equals(rows(tmp_path / "undisturbed" / "tiny"))
