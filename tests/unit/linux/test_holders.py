"""Who holds a port or a program, from a /proc made by hand; the real one answers in the tests of what asks it."""

from __future__ import annotations

from pathlib import Path

from wiremeter.linux.holders import program_holder


def test_the_process_that_has_a_program_open_is_named(tmp_path: Path) -> None:
    for pid, name, program in ((7, "other", 41), (812, "wiremeter", 42)):
        process = tmp_path / str(pid)
        (process / "fd").mkdir(parents=True)
        (process / "fdinfo").mkdir()
        (process / "comm").write_text(f"{name}\n")
        (process / "fd" / "5").symlink_to("anon_inode:bpf-prog")
        (process / "fdinfo" / "5").write_text(f"pos:\t0\nprog_type:\t3\nprog_id:\t{program}\n")
        (process / "fd" / "6").symlink_to("anon_inode:bpf-map")
        (process / "fdinfo" / "6").write_text("map_id:\t4\nprog_id:\t4\n")
    (tmp_path / "9").mkdir()  # one whose descriptors are not shown
    assert program_holder(42, tmp_path) == "wiremeter (pid 812)"
    assert program_holder(4, tmp_path) is None
