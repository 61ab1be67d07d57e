"""The library below torch.profiler."""

import os


def quiet() -> None:
    """Keep it from reporting its own beginning and end, with process numbers, on stderr.

    It reads this when it is first used. Errors are still raised as exceptions.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")
