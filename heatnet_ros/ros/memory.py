"""Keep a long-running process small where glibc would let it grow for hours."""

from __future__ import annotations

import ctypes

# names as in mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGE_BYTES = 2**24


def share_one_heap() -> None:
    """Let all threads take memory from one heap; call it before any thread is started.

    glibc makes a heap for each new thread, up to eight a core, and each keeps what images and
    networks once took: a node whose worker and networks come anew with every activation grows from
    one heap to the next (397 to 454 MB over eight cycles with larger images in between; 359 to 371
    MB with one heap). Waiting for one another costs the threads nothing that can be measured.

    Blocks from 16 MB on get pages of their own, and no more than that stays unused at the heap's
    end; glibc by itself learns to take larger ones and to keep twice their size. Not less: an image
    with pages of its own costs a fault for each, 20 ms at 1080p.

    Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Return to the system what glibc's heap keeps for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
