"""Files that operating systems leave behind; they are no data."""

_NAMES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "@eadir"}


def is_system_file(name: str) -> bool:
    """Whether a file's or folder's name (its last part) is a system's own: ``.DS_Store``, ``._a.jpg``, ..."""
    return name.startswith(".") or name.lower() in _NAMES
