"""Prints the pinned requirements of one extra of pyproject.toml: requirements.py EXTRA."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())
print(*project["project"]["optional-dependencies"][sys.argv[1]])
