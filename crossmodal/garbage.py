"""The cyclic garbage collector, in processes that load much, and then do the same for ever."""

import gc

# A bulk message makes tens of thousands of objects that live until it is done. With Python's
# own 700, looking through them again and again took a quarter of the worker's time.
MADE = 50_000


def freeze_gc() -> None:
    """Leave alone for ever what has been loaded, and look at what comes after less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(MADE)
