"""What a user can mend, and what a machine lacks."""

import re


class UserError(ValueError):
    """A user's mistake: one line saying what is wrong, what is allowed and how to mend it.

    The command line prints the message and exits with code 2. Mistakes of the program itself are never of this type.
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice.

    torch has an OutOfMemoryError for CUDA alone; on mps and the processor it raises a RuntimeError that says so.
    """
    return isinstance(error, MemoryError) or bool(re.search("out of memory|can't allocate memory", str(error)))
