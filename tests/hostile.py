"""A pickle that does something when it is read."""

import os


class Hostile:
    """What makes a folder as soon as it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)
