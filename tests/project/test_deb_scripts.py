# The programs of the Debian package: what debian/environment.py writes of the wheels.
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREFIX = "/usr/lib/brokerd"


def test_a_program_begins_without_an_import_of_the_installers_own(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "client", tmp_path / "client", ignore=shutil.ignore_patterns("__pycache__"))
    made = [sys.executable, "-m", "flit_core.wheel", "--outdir", str(tmp_path / "wheels"), str(tmp_path / "client")]
    subprocess.run(made, check=True, capture_output=True)
    written = [sys.executable, str(ROOT / "debian" / "environment.py"), str(tmp_path / "wheels"), str(tmp_path), PREFIX]
    subprocess.run(written, check=True, capture_output=True)
    program = tmp_path / PREFIX.lstrip("/") / "bin" / "git-credential-brokerd"
    assert program.stat().st_mode & 0o777 == 0o755
    assert program.read_text().splitlines() == [
        f"#!{PREFIX}/bin/python3",
        "import sys",
        "from brokerd_client.credentials.git import main",
        "",
        "if __name__ == '__main__':",
        "    sys.exit(main())",
    ]
