"""Numbers of TLS and what people call them: versions and cipher suites."""

from __future__ import annotations

#: Versions by their number on the wire (RFC 8446, appendix D), as this project writes them.
VERSIONS = {
    0x0002: "ssl2",
    0x0300: "ssl3",
    0x0301: "1.0",
    0x0302: "1.1",
    0x0303: "1.2",
    0x0304: "1.3",
}
_TLS13 = 0x0304
#: Drafts of TLS 1.3 count as 1.3: 0x7f and the draft's number, or 0xfb and that number as Facebook's clients sent it.
_DRAFTS = (0x7F00, 0xFB00)

#: Cipher suites by IANA's registry "TLS Cipher Suites": those of TLS 1.3, and of earlier versions those that servers
#: of the last two decades choose. The words every name of a group shares are said once.
_SUITES: dict[str, dict[int, str]] = {
    "TLS_": {
        0x1301: "AES_128_GCM_SHA256",
        0x1302: "AES_256_GCM_SHA384",
        0x1303: "CHACHA20_POLY1305_SHA256",
        0x1304: "AES_128_CCM_SHA256",
        0x1305: "AES_128_CCM_8_SHA256",
    },
    "TLS_ECDHE_ECDSA_WITH_": {
        0xC006: "NULL_SHA",
        0xC007: "RC4_128_SHA",
        0xC008: "3DES_EDE_CBC_SHA",
        0xC009: "AES_128_CBC_SHA",
        0xC00A: "AES_256_CBC_SHA",
        0xC023: "AES_128_CBC_SHA256",
        0xC024: "AES_256_CBC_SHA384",
        0xC02B: "AES_128_GCM_SHA256",
        0xC02C: "AES_256_GCM_SHA384",
        0xC0AC: "AES_128_CCM",
        0xC0AD: "AES_256_CCM",
        0xC0AE: "AES_128_CCM_8",
        0xC0AF: "AES_256_CCM_8",
        0xCCA9: "CHACHA20_POLY1305_SHA256",
    },
    "TLS_ECDHE_RSA_WITH_": {
        0xC010: "NULL_SHA",
        0xC011: "RC4_128_SHA",
        0xC012: "3DES_EDE_CBC_SHA",
        0xC013: "AES_128_CBC_SHA",
        0xC014: "AES_256_CBC_SHA",
        0xC027: "AES_128_CBC_SHA256",
        0xC028: "AES_256_CBC_SHA384",
        0xC02F: "AES_128_GCM_SHA256",
        0xC030: "AES_256_GCM_SHA384",
        0xC076: "CAMELLIA_128_CBC_SHA256",
        0xC077: "CAMELLIA_256_CBC_SHA384",
        0xCCA8: "CHACHA20_POLY1305_SHA256",
    },
    "TLS_DHE_RSA_WITH_": {
        0x0016: "3DES_EDE_CBC_SHA",
        0x0033: "AES_128_CBC_SHA",
        0x0039: "AES_256_CBC_SHA",
        0x0045: "CAMELLIA_128_CBC_SHA",
        0x0067: "AES_128_CBC_SHA256",
        0x006B: "AES_256_CBC_SHA256",
        0x0088: "CAMELLIA_256_CBC_SHA",
        0x009E: "AES_128_GCM_SHA256",
        0x009F: "AES_256_GCM_SHA384",
        0xC09E: "AES_128_CCM",
        0xC09F: "AES_256_CCM",
        0xCCAA: "CHACHA20_POLY1305_SHA256",
    },
    "TLS_RSA_WITH_": {
        0x0001: "NULL_MD5",
        0x0002: "NULL_SHA",
        0x0004: "RC4_128_MD5",
        0x0005: "RC4_128_SHA",
        0x0009: "DES_CBC_SHA",
        0x000A: "3DES_EDE_CBC_SHA",
        0x002F: "AES_128_CBC_SHA",
        0x0035: "AES_256_CBC_SHA",
        0x003B: "NULL_SHA256",
        0x003C: "AES_128_CBC_SHA256",
        0x003D: "AES_256_CBC_SHA256",
        0x0041: "CAMELLIA_128_CBC_SHA",
        0x0084: "CAMELLIA_256_CBC_SHA",
        0x009C: "AES_128_GCM_SHA256",
        0x009D: "AES_256_GCM_SHA384",
        0xC09C: "AES_128_CCM",
        0xC09D: "AES_256_CCM",
        0xC0A0: "AES_128_CCM_8",
        0xC0A1: "AES_256_CCM_8",
    },
    "TLS_DH_anon_WITH_": {
        0x0034: "AES_128_CBC_SHA",
        0x003A: "AES_256_CBC_SHA",
    },
}
CIPHERS = {number: words + name for words, names in _SUITES.items() for number, name in names.items()}


def version_name(version: int) -> str:
    """
    >>> version_name(0x0303), version_name(0x7F1C), version_name(0x0399)
    ('1.2', '1.3', '0x0399')
    """
    return VERSIONS.get(_released(version)) or f"{version:#06x}"


def cipher_name(suite: int) -> str:
    """IANA's name of a cipher suite, or its number where the table above has none.

    >>> cipher_name(0xC02F), cipher_name(0xC0FF)
    ('TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256', '0xc0ff')
    """
    return CIPHERS.get(suite) or f"{suite:#06x}"


def _released(version: int) -> int:
    return _TLS13 if version & 0xFF00 in _DRAFTS else version
