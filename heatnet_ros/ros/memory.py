"""Keep a long-running process small where glibc would let it grow for hours."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
_ARENAS = 2


def limit_arenas() -> None:
    """Let all threads share two heaps; call it before any of them is started.

    glibc makes a heap for each new thread, up to eight a core, and each keeps some 10 MB that
    images once took: a node whose worker starts anew with every activation grows from one heap to
    the next. Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return to the system what glibc's heaps keep for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
