"""A bounded run of all fuzzers: no crash, no hang, no wrong sum, bounded memory; and that they would find one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from . import fuzzing

#: Of each fuzzer; `make fuzz` runs longer.
SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
LEAST_RUNS = 1000


@pytest.mark.parametrize("name", fuzzing.FUZZERS)
def test_no_input_breaks_the_library(name: str, tmp_path: Path) -> None:
    program = fuzzing.build(name, tmp_path)
    seeds = fuzzing.make_seeds(name, tmp_path / "seeds")
    done = fuzzing.run(program, tmp_path / "corpus", seeds, SECONDS)
    failing = {file.name: file.read_bytes().hex() for file in tmp_path.glob("*-*") if file.is_file()}
    assert done.returncode == 0, f"{done.stderr[-4000:]}\ninput: {failing}"
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert runs, done.stderr[-1000:]
    assert int(runs[1]) >= LEAST_RUNS


@pytest.mark.parametrize(
    ("name", "file", "right", "wrong"),
    [
        ("frame", "host/frame.h", ".len = captured,", ".len = captured + 1,"),
        ("frame", "host/host.c", "to + sizeof(head), captured)", "to + sizeof(head), captured - 1)"),
        ("frame", "lib/packet.h", "h->payload_bytes = end - offset;", "h->payload_bytes = packet->len - offset + 1;"),
        ("frame", "host/rows.c", "to->packets += row->packets", "to->packets = row->packets"),
        ("names", "names/dns.c", "at + RECORD_BYTES > in.count", "at + RECORD_BYTES > in.count + 1"),
        ("names", "names/dns.c", "*end > in.count ? 0 : at", "*end > in.count + 1 ? 0 : at"),
        ("names", "names/dns.c", "!!size > WM_DNS_NAME_BYTES", "!!size > WM_DNS_NAME_BYTES + 50"),
        ("names", "names/dns.c", "told->text[told->text_bytes++] = wm_lower(", "told->text[told->text_bytes++] = ("),
        ("names", "names/dns_transactions.c", "waiting->older = dns->newest;", "waiting->older = 0;"),
        ("names", "names/dns_transactions.c", "if (dns->count == dns->capacity)", "if (dns->count > dns->capacity)"),
        ("names", "names/said.h", "i < at + bytes && i < said.bytes", "i < at + bytes && i <= said.bytes"),
        ("names", "names/said.h", "if (text->bytes < count)\n\t\treturn 0;", ""),
        ("names", "names/listening.c", "listening->conversations[hole] = moved;", ""),
        ("names", "names/block.c", "wm_listening_add(listening, hash);", ""),
        ("tls", "names/tls_hello.c", "bytes > left(from)", "bytes > left(from) + 1"),
        ("tls", "names/tls_hello.c", "? byte + 32 : byte", "? byte : byte"),
        ("tls", "names/ja4.c", "if (list->count == WM_JA4_LISTED)", "if (list->count > WM_JA4_LISTED)"),
        ("tls", "names/tls.c", "least(part.bytes, half->message_left)", "part.bytes"),
        ("tls", "names/tls.c", "result = message_take(r, hello_join(r));", "result = message_take(r, part);"),
        ("tls", "names/tls.c", "wm_bytes_clear(cells, &tls->alpn);", ""),
        (
            "tls",
            "names/tls.c",
            "if (half->message_left || half->is_over)\n\t\t\treturn (int64_t)",
            "if (half->is_over)\n\t\t\treturn (int64_t)",
        ),
        ("names", "names/cells.c", "part = part < count - added ? part : count - added;", ""),
        (
            "names",
            "names/streams.c",
            "wm_bytes_clear(cells, &piece->bytes);\n\twm_cell_give(cells, number);\n}",
            "wm_cell_give(cells, number);\n}",
        ),
        (
            "names",
            "names/http1.c",
            "size_of(read->method) > WM_HTTP_METHOD_BYTES",
            "size_of(read->method) > WM_HTTP_METHOD_BYTES + 9",
        ),
        ("names", "names/http1.c", "if (bytes > WM_HTTP_HOST_BYTES)\n\t\treturn 0;", ""),
        ("names", "names/http1.c", "wm_bytes_clear(to->cells, &request->path);", ""),
        ("names", "names/tcp.c", "queue_clear(tcp, &connection->late);\n\twm_known_end", "wm_known_end"),
        ("names", "names/tcp.c", "if (tcp->count == tcp->capacity)\n\t\tlet_go", "if (0)\n\t\tlet_go"),
        ("names", "names/applications_tcp.c", "&& tcp->server.bytes >= 8 &&", "&& tcp->server.bytes >= 4 &&"),
        ("names", "names/applications_tcp.c", "if (is_kafka_request(said) || is_mongo", "if (is_mongo"),
        ("domains", "names/domains.c", "at < starts[1]", "at <= starts[1]"),
        ("domains", "names/domains.c", "a->words[1] == b->words[1]", "1"),
        ("capture", "host/capture.c", "if (bytes < length)", "if (bytes + 1 < length)"),
    ],
)
def test_a_mistake_in_the_library_is_found(name: str, file: str, right: str, wrong: str, tmp_path: Path) -> None:
    sources = shutil.copytree(fuzzing.ROOT / "bpf", tmp_path / "bpf")
    text = (sources / file).read_text()
    assert right in text, f"{file} has no {right!r}: change this test with it"
    (sources / file).write_text(text.replace(right, wrong, 1))
    program = fuzzing.build(name, tmp_path, bpf=sources)
    seeds = fuzzing.make_seeds(name, tmp_path / "seeds")
    assert fuzzing.run(program, tmp_path / "corpus", seeds, 20).returncode != 0
