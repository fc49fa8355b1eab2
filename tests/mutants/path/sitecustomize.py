"""First in the path of a mutated tree's processes: takes the tree that is installed out of theirs.

`partbook` is a namespace package: what the installed tree holds would be part of it, and a module that a fault keeps
from being found would be taken from there.
"""

import os
import sys
from pathlib import Path

_INSTALLED = Path(os.environ["PARTBOOK_INSTALLED_TREE"])
sys.path[:] = [place for place in sys.path if Path(place) not in {_INSTALLED / part for part in _INSTALLED.iterdir()}]
