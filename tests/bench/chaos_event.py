"""What happens in ``chaos.py``."""

from __future__ import annotations

import random

from chaos_world import World


class Event:
    """``begin``, then ``lasts_s``, then ``end``; ``detail`` says which kind it was.

    outer: begins before and ends after the others of its round.
    """

    name = "event"
    outer = False

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.lasts_s = rng.uniform(0.3, 2.5)
        self.detail = ""

    def begin(self) -> None:
        """Nothing happens: good data go on."""

    def end(self) -> None:
        """The camera is reset, and awaited, by the caller."""
