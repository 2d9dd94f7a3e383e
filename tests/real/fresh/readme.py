# The commands that README.md tells a newcomer to type, as they stand there.
from __future__ import annotations

import re

from tests.real.systemd.box import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = TEXT.partition("\n## Install\n")[2].partition("\n## ")[0]
PROGRAMS = ("pip ", "pipx ", "make ", "apt-get ", "brokerctl ", "python3 ")
FIRST = [line.split("#")[0].strip() for line in re.findall(r"^    (make .*)$", TEXT, re.MULTILINE)]
WAYS = [
    [line.split(" #")[0].strip() for line in block.strip().splitlines()]
    for block in re.findall(r"^```sh\n(.*?)^```$", INSTALL, re.MULTILINE | re.DOTALL)
]
SENTENCES = re.sub(r"^```.*?^```$", "", INSTALL, flags=re.MULTILINE | re.DOTALL)
# What the sentences name besides. One that says what a command does may name it without its arguments.
NAMED = [
    words for each in re.findall(r"`([^`]+)`", SENTENCES) if (words := " ".join(each.split())).startswith(PROGRAMS)
]
