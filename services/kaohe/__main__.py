"""``python -m kaohe`` is the command ``kaohe``."""

from __future__ import annotations

from kaohe.cli import main

main()
