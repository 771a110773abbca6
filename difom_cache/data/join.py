"""Records of several caches that are read as one: which are the same image, and what each is called there.

A file's name is no identity: two hospitals both have a `0001.png` and a `video01`. In a join the image's digest says what is
one record, and names that stand for several images, or for groups without a common image, are told apart. What a record is
called there follows from its own image and from the other names alone, never from the order of the caches.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from difom_cache.base.text import name_some

Lines = Sequence[Mapping[str, str]]
"""A cache's records.csv, line by line."""
_Node = str | tuple[int, str]  # an image, or a group of a cache


@dataclass(frozen=True)
class Join:
    """What the records of some caches are in a run that reads all of them.

    Attributes:
        names: a list for each cache: what each record is called; equal for equal images, and for those alone.
        groups: likewise: the group of each record; of a record without one, its name.
        shared: images that lie in more than one of the caches.
        relabelled: those of them that have more than one mask.
        apart_ids: ids that stand for several images.
        apart_groups: names that stand for several groups.
        torn: records that train in one cache and validate in another, by id.
        tested: records that train or validate in one cache and are test records of another, by id.
    """

    names: tuple[tuple[str, ...], ...]
    groups: tuple[tuple[str, ...], ...]
    shared: int
    relabelled: int
    apart_ids: tuple[str, ...]
    apart_groups: tuple[str, ...]
    torn: tuple[str, ...]
    tested: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what a run that reads all of the caches would see, for a program."""
        return {
            "records": len({name for names in self.names for name in names}),
            "groups": len({group for groups in self.groups for group in groups}),
            **{each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("names", "groups")},
        }

    def describe(self) -> list[str]:
        """Return a line for everything that is not as in each cache alone."""
        several = [
            (self.shared, f"{_count(self.shared, 'image')} in more than one cache: one record each"),
            (
                self.relabelled,
                f"{_count(self.relabelled, 'image')} with other masks in another cache: all of them are used",
            ),
            (self.apart_ids, f"{_list('id', self.apart_ids)} of different images: told apart"),
            (self.apart_groups, f"{_list('group', self.apart_groups)} without a common image: told apart"),
            (self.tested, f"{_list('image', self.tested)} used by training and tested on in another cache"),
        ]
        return [line for found, line in several if found]


def join_records(caches: Sequence[Lines]) -> Join:
    """Return what the records of some caches are called together; in one cache they keep their own ids and groups."""
    ids, splits, masks = (defaultdict[str, set[str]](set) for _ in range(3))
    images: defaultdict[str, set[str]] = defaultdict(set)
    held: defaultdict[str, set[int]] = defaultdict(set)
    for number, lines in enumerate(caches):
        for line in lines:
            image = line["image_sha256"]
            ids[image].add(line["id"])
            images[line["id"]].add(image)
            held[image].add(number)
            splits[image].add(line["split"])
            masks[image].update(filter(None, [line["mask_sha256"]]))
    shared = {image for image, places in held.items() if len(places) > 1}
    if len(caches) < 2:
        names = tuple(tuple(line["id"] for line in lines) for lines in caches)
        groups = tuple(tuple(line["group"] or line["id"] for line in lines) for lines in caches)
        return Join(names, groups, 0, 0, (), (), (), ())
    name_of = {image: _name(min(own), images[min(own)], image) for image, own in ids.items()}
    group_of, apart_groups = _join_groups(caches, name_of)
    return Join(
        names=tuple(tuple(name_of[line["image_sha256"]] for line in lines) for lines in caches),
        groups=tuple(tuple(group_of[line["image_sha256"]] for line in lines) for lines in caches),
        shared=len(shared),
        relabelled=sum(len(masks[image]) > 1 for image in shared),
        apart_ids=tuple(sorted(name for name, own in images.items() if len(own) > 1)),
        apart_groups=apart_groups,
        torn=tuple(sorted(min(ids[image]) for image in shared if splits[image] >= {"train", "val"})),
        tested=tuple(sorted(min(ids[image]) for image in shared if "test" in splits[image] and len(splits[image]) > 1)),
    )


def _join_groups(caches: Sequence[Lines], name_of: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the group of each image, and the names that stand for several groups; groups with a common image are one."""
    above: dict[_Node, _Node] = {}  # each node's way up to that of its family

    def find_family(node: _Node) -> _Node:
        while (up := above.setdefault(node, node)) != node:
            above[node] = above[up]
            node = above[node]
        return node

    for number, lines in enumerate(caches):
        for line in lines:
            if line["group"]:
                above[find_family(line["image_sha256"])] = find_family((number, line["group"]))
    names, families = defaultdict[_Node, set[str]](set), defaultdict[str, set[_Node]](set)
    first: dict[_Node, str] = {}  # the image that tells a family from another of its name
    for node in list(above):
        family = find_family(node)
        if isinstance(node, str):
            first[family] = min(node, first.get(family, node))
        else:
            names[family].add(node[1])
            families[node[1]].add(family)
    group_of = dict(name_of)
    for image in name_of:
        if image in above:
            family = find_family(image)
            group_of[image] = _name(min(names[family]), families[min(names[family])], first[family])
    return group_of, tuple(sorted(group for group, several in families.items() if len(several) > 1))


def _name(name: str, bearers: Iterable[object], image: str) -> str:
    """Return a name, with the image that tells it apart where it has several bearers."""
    return name if len(set(bearers)) < 2 else f"{name} of image {image}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number != 1 else ''}"


def _list(word: str, names: Sequence[str]) -> str:
    return f"{_count(len(names), word)} ({name_some(names)})"
