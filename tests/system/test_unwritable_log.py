"""A log directory that cannot be written: a warning, logs on stderr, and llmd serves."""

from tests.system.running import GOOD, Llmd, free_ports, lay_out, request, unruly


def test_daemon_serves_and_says_where_its_logs_go(short_dir):
    port = free_ports(1)[0]
    llmd = Llmd(short_dir, lay_out({"a": unruly(port)}))
    (short_dir / "log").write_text("a file where the directory should be")
    llmd.start()
    try:
        assert request(port, body=GOOD)[0] == 200
        assert "log.unwritable" in llmd.log()
        assert "Traceback" not in llmd.log()
        assert llmd.ctl("status").returncode == 0
    finally:
        assert llmd.stop() == 0
