"""Directories: tools that find the name or the id of what a trusted key stands for.

"Delete the file vacation-plans.docx" names a file; the tool that deletes wants
an id, which only a lookup knows, and the lookup comes after the run has read
what strangers wrote. A *directory* is a tool whose entries, the ids or names it
assigns, may be relied on even then. It says so, and of which kind they are::

    @reads("drive.files", directory=Directory("drive.file", field="id"))
    def find_files(name: str) -> Untrusted[list[File]]: ...

    @irreversible("drive.deletion")
    def delete_file(file_id: Annotated[str, refers("drive.file")]) -> None: ...

What a lookup finds is a *reference*: a value that is good for parameters of
that kind and for nothing else, so that an id is never taken for a day, nor the
name of a channel for an address. It becomes one only

* if the call was asked for with trusted words: every plain argument that is not left
  at its default is a text of a trusted origin, and there is one that says something. A
  number says nothing: ``limit=1`` would make any lookup find just one;
* if no content has taken part in the search, neither as an argument nor by its handle;
* if exactly one entry was found, or, with ``key="name"``, exactly one whose field
  ``name`` is, letter by letter, what was given for the parameter ``by``: by default the
  only plain one that has to be given. Of two files of one name, one may
  be a stranger's. A directory of members, where whoever named the group meant all
  of them, says ``several=True``;
* if the run has not, while it was exposed, written to what the directory reads.

A tool that creates an entry is a directory, too: it returns the id that was
assigned to a trusted name, whatever was put into it.

``listing=True`` needs no key: the whole list is relied on. Say it only of a list
that strangers cannot add to under a name of their choosing.

The rest of what a directory returns stays what it is, content for example.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from checkrein.errors import MisuseError
from checkrein.untrusted import bare

_MOST: Final = 10_000


class Refers(NamedTuple):
    """A word for ``Annotated[...]``: the parameter names an entry of a kind. See :func:`refers`."""

    kind: str

    def __repr__(self) -> str:
        return f"checkrein.refers({self.kind!r})"


def refers(kind: str) -> Refers:
    """Say that a parameter names an entry of a directory of *kind*.

    Args:
        kind: what the directories list, ``"drive.file"`` for example.
    """
    return Refers(_checked_kind(kind))


class Directory(NamedTuple):
    """What a tool says that it is a directory of; see :mod:`checkrein.directories`.

    Args:
        kind: what it lists; parameters that take an entry say ``refers(kind)``.
        field: the field or key of each item that the directory assigns; ``""`` if
            the items themselves are the names.
        key: the field of each item that holds what it is looked up by.
        by: the parameter that takes the key, where more than one has to be given.
        several: all items found are meant, not one.
        listing: the whole list is relied on, without a key.
    """

    kind: str
    field: str = ""
    key: str = ""
    several: bool = False
    listing: bool = False
    by: str = ""


def check_directory(directory: object) -> None:
    """Refuse what is no directory.

    Raises:
        MisuseError: it is none.
    """
    if not isinstance(directory, Directory):
        raise MisuseError('directory= takes Directory("drive.file", field="id")')
    _checked_kind(directory.kind)
    if not all(isinstance(one, str) for one in (directory.field, directory.key, directory.by)):
        raise MisuseError("Directory(field=..., key=..., by=...) takes names")


def _checked_kind(kind: object) -> str:
    if not isinstance(kind, str) or not kind.strip():
        raise MisuseError('a kind is a text, "drive.file" for example')
    return kind


def entries(directory: Directory, result: Any, asked: Collection[str] = ()) -> list[Any]:
    """Return the names or ids that a lookup has found; nothing where it is not clear which.

    Args:
        directory: what the tool says that it is.
        result: what the tool's body returned.
        asked: the trusted texts that were given as the key.
    """
    result = bare(result)
    items = list(result) if isinstance(result, list | tuple | set | frozenset) else [result]
    if len(items) > 1 and directory.key:
        items = [one for one in items if _field(bare(one), directory.key) in asked] or items
    if len(items) > _MOST or (len(items) != 1 and not (directory.several or directory.listing)):
        return []
    found = [_field(bare(item), directory.field) for item in items]
    return [one for one in found if type(one) in {str, int} and one != ""]


def fields_of(result: Any, names: Collection[str]) -> list[Any]:
    """Return what the fields called *names* of each item of a result hold."""
    result = bare(result)
    items = result if isinstance(result, list | tuple | set | frozenset) else [result]
    found = [_field(bare(item), name) for item in items for name in names]
    return [one for one in found if one is not None]


def _field(item: Any, name: str) -> Any:
    if not name:
        return item
    found = item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)
    return bare(found)
