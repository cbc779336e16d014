"""What agents shipped, stored once, and queries over it.

    with open_store("/var/lib/wiremeter/store") as store:
        batch = Batch(about=about, content=sha256, received_ns=now, tables={"flows": conform("flows", table)})
        store.submit(batch)           # a Future[Stored]; asyncio.wrap_future waits for it without a thread
        store.insert(batch)           # the same, waiting: Stored(is_new=True), or False if it was stored before
        source = store.source({"application"}, start_ns, end_ns)   # rollups, and flows where those do not serve
        store.query(f"SELECT application, sum(bytes) AS bytes FROM {source.sql} GROUP BY application").table()
        store.query_untrusted("SELECT application, sum(bytes) FROM flows GROUP BY application")   # text of a user
        with store.query("SELECT device, sum(bytes) AS bytes FROM wiremeter.flows WHERE agent = {agent:String} "
                         "GROUP BY device", {"agent": "web-1"}) as rows:
            rows.schema               # pyarrow schema
            for batch in rows: ...    # pyarrow record batches, as the engine has them; or rows.table()

Errors say whose move it is: InputError (tables that are not as `conform` makes them), Conflict (the same identity is
stored with other content), Refused (the engine says no, and will again), TooMuch (a query beyond its limits),
Unavailable (nothing was acknowledged, try again after `retry_after` seconds: the engine is being restarted, too much
waits, the disk is full). A batch is acknowledged when all of it is inserted, and not before.

The columns of each table are in `schema.STORE`: those of `wiremeter.shipment.schema`, with `time` (the beginning of the
batch's interval, where the table has no time of its own), `agent` and `batch_mode`. Addresses are IPv6 there, and
fixed_size_binary(16) in answers, IPv4 as v4-mapped; text that is null in a batch is '' in the store.

`store.hear(Heard(agent, seen_ns, heartbeat))` and `store.heard()` are the registry of agents,
`store.refuse(Refusal(…))` the log of what was quarantined, `store.state` what goes into /metrics.

All calls block and may be made from any thread; queries run beside each other.
"""

from wiremeter.server.store.arrow import arrow_schema, conform
from wiremeter.server.store.backend import QueryLimits, Rows
from wiremeter.server.store.batch import Batch, Stored
from wiremeter.server.store.errors import Conflict, Refused, StoreError, TooMuch, Unavailable
from wiremeter.server.store.ledger import Heard, Refusal
from wiremeter.server.store.loader import Limits
from wiremeter.server.store.retention import Keep
from wiremeter.server.store.sandbox import SqlRefused
from wiremeter.server.store.schema import DATABASE
from wiremeter.server.store.source import Source
from wiremeter.server.store.store import State, Store, open_store

__all__ = [
    "DATABASE",
    "Batch",
    "Conflict",
    "Heard",
    "Keep",
    "Limits",
    "QueryLimits",
    "Refusal",
    "Refused",
    "Rows",
    "Source",
    "SqlRefused",
    "State",
    "Store",
    "StoreError",
    "Stored",
    "TooMuch",
    "Unavailable",
    "arrow_schema",
    "conform",
    "open_store",
]
