"""The scripts of the app's build, as modules."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "android_demo" / "toolchain"))
