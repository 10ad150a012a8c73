"""The one exception for mistakes that a user can mend."""


class UserError(ValueError):
    """A user's mistake: one line saying what is wrong, what is allowed and how to mend it.

    The command line prints the message and exits with code 2. Mistakes of the program itself are never of this type.
    """
