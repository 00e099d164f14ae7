"""What is wrong with the user's data or request: one clear line, exit code 2 in a terminal."""


class DataError(ValueError):
    """The data, or what was asked of them, cannot be used; the message says what and where."""


class OutsideDomain(DataError):
    """The data lie outside the domain of every loss that was asked for; exit code 3."""


class FolderError(OSError):
    """The folder of results cannot be written to, as on a full disk; exit code 1."""
