"""Who may open the file of a log and what lies beside it.

What this library makes is for its own user alone, or also for one group where
the URL names it.  No mode is ever changed by name: between the look and the
change somebody else could have put another file there.
"""

from __future__ import annotations

import logging
import os
import stat

from sse_broker.errors import InvalidConfig, LogUnavailable

__all__ = ["File", "folder_is_ours", "group_id"]

_log = logging.getLogger("sse_broker.logs")
_said: set[str] = set()


class File:
    """A file at *path*, and the group that may use it too, if any."""

    def __init__(self, path: str, group: int | None = None) -> None:
        self.path = path
        self.group = group
        self.was_made = False  # by this object: it was not there

    @property
    def mode(self) -> int:
        """The mode of what is made."""
        return 0o600 if self.group is None else 0o660

    def make(self) -> None:
        """Make the file if there is none; look at who else may use one that there is.

        :raises LogUnavailable: it cannot be made, or its name is another user's link.
        """
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            self._look()
            return
        except (OSError, ValueError) as err:
            why = getattr(err, "strerror", "") or "no path"
            raise LogUnavailable(
                f"{self.path}: unable to open database file: {why}", retry_after=1.0
            ) from err
        try:
            self.share(handle)
        finally:
            os.close(handle)
        self.was_made = True

    def share(self, handle: int) -> None:
        """Let the group use an open file."""
        if self.group is not None:
            os.fchown(handle, -1, self.group)
            os.fchmod(handle, self.mode)

    def _look(self) -> None:
        found = os.lstat(self.path)
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
            raise LogUnavailable(f"{self.path} is a symbolic link that another user has made")
        try:
            found = os.stat(self.path)
        except OSError:  # SQLite says what is wrong with it
            return
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o007 and self.path not in _said:
            _said.add(self.path)
            _log.warning(
                "%s can be opened by every user of this machine (mode %03o), with all messages in"
                " it; cure: chmod o= %s*",
                self.path,
                stat.S_IMODE(found.st_mode),
                self.path,
            )


def folder_is_ours(folder: str, file: File) -> bool:
    """Whether nobody but the user of *file*, root or its group can put something into *folder*."""
    try:
        found, owner = os.lstat(folder), os.stat(file.path).st_uid
    except OSError:
        return False
    group_writes = found.st_mode & stat.S_IWGRP and found.st_gid != file.group
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid in (0, os.geteuid(), owner)
        and not group_writes
        and not found.st_mode & stat.S_IWOTH
    )


def group_id(name: str) -> int:
    """Return the id of a group of this machine, by its name or number.

    :raises InvalidConfig: there is none.
    """
    if name.isascii() and name.isdigit() and len(name) <= 10:
        return int(name)
    try:
        import grp  # not on Windows

        return grp.getgrnam(name).gr_gid
    except (ImportError, KeyError, ValueError):
        raise InvalidConfig(f"there is no group {name!r} on this machine", field="log") from None
