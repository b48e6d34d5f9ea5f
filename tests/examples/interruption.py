"""A run of an example that somebody interrupts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from training.run import Run


def interrupted(main: Callable[[list[str]], Any], arguments: list[str], *, after: int) -> None:
    """Run an example, and stop it as Ctrl-C does after so many steps, in the middle of the next."""
    update = Run.update

    def stopping(run: Run, *rest: Any) -> Any:
        if run.step == after:
            raise KeyboardInterrupt
        return update(run, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "update", stopping)
        with pytest.raises(KeyboardInterrupt):
            main(arguments)
