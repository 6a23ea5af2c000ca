"""The repository's folder, and its files."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def text(name: str) -> str:
    """Returns the content of a file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")
