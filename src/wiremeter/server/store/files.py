"""The engine's own files: its configuration, and the user that everybody is there."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

#: All that is done with tables, and nothing that reaches out of them: no SOURCES (files, URLs, other databases), no
#: functions or dictionaries that run programs. INFILE is the writer's own; the only disk is the one for backups.
_GRANTS = (
    "SELECT, INSERT, CREATE DATABASE, CREATE TABLE, DROP TABLE, ALTER, TRUNCATE, OPTIMIZE, SHOW, KILL QUERY, BACKUP"
)

#: What the engine calls the directory `backups` beside its own.
BACKUPS_DISK = "backups"

_USERS = """\
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password/><profile>default</profile><quota>default</quota><networks><ip>::1</ip></networks>
    <grants><query>GRANT {grants} ON *.*</query><query>GRANT READ, WRITE ON DISK</query></grants>
  </default></users>
</clickhouse>
"""

_ENGINE = """\
<clickhouse>
  <users_config>{users}</users_config>
  <logger><level>none</level></logger>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>33554432</mark_cache_size>
  <index_mark_cache_size>4194304</index_mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <mmap_cache_size>64</mmap_cache_size>
  <compiled_expression_cache_size>4194304</compiled_expression_cache_size>
  <storage_configuration><disks><{disk}><type>local</type><path>{backups}/</path></{disk}></disks></storage_configuration>
  <backups><allowed_disk>{disk}</allowed_disk></backups>
  <merge_tree><old_parts_lifetime>60</old_parts_lifetime></merge_tree>
  <background_pool_size>4</background_pool_size>
  <background_schedule_pool_size>4</background_schedule_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
</clickhouse>
"""


def engine_files(directory: Path, *, memory_bytes: int) -> Path:
    """Writes them to `directory`, which is made; the path of the configuration.

    memory_bytes: what the engine may take for queries, inserts and merges together.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    users, engine = directory / "users.xml", directory / "engine.xml"
    users.write_text(_USERS.format(grants=_GRANTS))
    backups = directory.resolve().parent / "backups"
    backups.mkdir(mode=0o700, exist_ok=True)
    engine.write_text(
        _ENGINE.format(
            users=escape(str(users.resolve())), memory=memory_bytes, disk=BACKUPS_DISK, backups=escape(str(backups))
        )
    )
    return engine
