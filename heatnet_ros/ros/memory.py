"""Keep a long-running process small where glibc would let it grow for hours."""

from __future__ import annotations

import ctypes

# names as in mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_ARENAS = 2
_LARGE_BYTES = 2**20


def limit_heaps() -> None:
    """Let all threads share two heaps, and keep large blocks out of them; call it before threads.

    glibc makes a heap for each new thread, up to eight a core, and each keeps some 10 MB that
    images once took: a node whose worker starts anew with every activation grows from one heap to
    the next.

    glibc also learns: once a network's weights have been freed, blocks of their size (up to 32 MB)
    come out of the heaps, and up to 64 MB stay at a heap's end. Small ones that live on then lie
    between images and weights, and what those leave cannot be given back: 397 MB grew to 454 over
    eight cycles of the lifecycle with larger images in between, 347 to 372 with this. Blocks of
    1 MB and more get pages of their own and give them back when freed, which costs no time that
    bench would see.

    Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Return to the system what glibc's heaps keep for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
