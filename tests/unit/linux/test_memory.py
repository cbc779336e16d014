"""What memory a meter needs at the least, and that it says so before it is killed."""

from __future__ import annotations

import pytest

from wiremeter.errors import InputError
from wiremeter.linux.memory import (
    LEAST_BYTES,
    LEAST_BYTES_WITH_NAMES,
    LEAST_FLOWS,
    check_memory,
    flows_that_fit,
    least_bytes,
)

MIB = 1 << 20


@pytest.mark.parametrize("with_names", [True, False])
def test_less_than_the_least_is_an_error_that_says_how_much_it_takes(with_names: bool) -> None:
    least = least_bytes(with_names=with_names)
    check_memory(least, with_names=with_names)
    with pytest.raises(InputError, match=rf"may use 40 MiB .* needs {least // MIB} MiB at least") as caught:
        check_memory(40 * MIB, with_names=with_names)
    assert ("--names none" in str(caught.value)) == with_names
    with pytest.raises(InputError):
        check_memory(least - 1, with_names=with_names)


def test_a_limit_that_is_not_known_is_none() -> None:
    check_memory(0, with_names=True)


def test_more_memory_has_room_for_more_flows() -> None:
    limits = [0, LEAST_BYTES, LEAST_BYTES_WITH_NAMES, 128 * MIB, 1024 * MIB, 64 << 30]
    room = [flows_that_fit(limit, with_names=True) for limit in limits]
    assert room == sorted(room)
    assert room[:3] == [LEAST_FLOWS] * 3
    assert room[-1] > 1 << 20
