"""IP addresses as an Arrow type of their own: 16 bytes, and `ipaddress` objects in Python."""

from __future__ import annotations

import functools
import ipaddress
from typing import Any


@functools.cache
def ip_type() -> Any:
    """The extension type `wiremeter.ip`, registered with pyarrow, which must be installed.

    Its storage is fixed_size_binary(16) in network order, IPv4 as v4-mapped; readers that do not know it have that.
    A value is an IPv4Address or an IPv6Address in Python.
    """
    import pyarrow as pa

    class IpScalar(pa.ExtensionScalar):  # type: ignore[misc]
        def as_py(self, **options: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
            if not self.is_valid:
                return None
            address = ipaddress.IPv6Address(self.value.as_py())
            return address.ipv4_mapped or address

    class IpType(pa.ExtensionType):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(pa.binary(16), "wiremeter.ip")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> IpType:
            return cls()

        def __arrow_ext_scalar_class__(self) -> type[IpScalar]:
            return IpScalar

    found = IpType()
    pa.register_extension_type(found)
    return found
