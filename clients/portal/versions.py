"""Which versions of a client and a gateway understand each other.

Semantic versioning (semver.org, items 4 and 8): the same major version; before 1.0 also the same minor
version.
"""

import re

_FORM = re.compile(r"(\d{1,6})\.(\d{1,6})(?:[.\-+].*)?\Z", re.ASCII)


def compatible(one: str, other: str) -> bool:
    """Whether two versions understand each other.

    What is no version is compatible with nothing but itself.
    """
    first, second = _FORM.match(one), _FORM.match(other)
    if first is None or second is None:
        return one == other
    if int(first[1]) != int(second[1]):
        return False
    return int(first[1]) > 0 or int(first[2]) == int(second[2])
