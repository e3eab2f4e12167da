"""The one exception that stands for bad usage or bad input.

Everything a user can put right (a missing folder, a class with one image, an unknown option) raises
:class:`InputError`; the command line turns it into one line on stderr and exit code 2. Whatever else escapes is a
defect of ours and keeps its traceback.
"""


class InputError(ValueError):
    """Bad usage or bad input. The message is one line that names what is wrong, where, and how to put it right."""
