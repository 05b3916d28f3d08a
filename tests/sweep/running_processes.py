"""Which processes live, which of them listen and where."""

import time
from pathlib import Path

_LISTENING = "0A"
# 127.0.0.1, the same in IPv6, and ::1, as /proc/net writes them.
_LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def is_running(pid: int) -> bool:
    return _state_and_parent(pid)[0] not in "Z?"


def wait_until_gone(*pids: int) -> None:
    deadline = time.monotonic() + 60
    while left := [pid for pid in pids if is_running(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def descendants(pid: int) -> set[int]:
    """The processes that a process has started, and those that these have."""
    parents = {int(path.name): 0 for path in Path("/proc").glob("[0-9]*")}
    parents = {each: _state_and_parent(each)[1] for each in parents}
    found, newest = set(), {pid}
    while newest:
        newest = {each for each, parent in parents.items() if parent in newest} - found
        found |= newest
    return found


def reachable_from_elsewhere(pids: set[int]) -> list[str]:
    """Sockets on which the processes listen, on other addresses than loopback."""
    sockets = {link for pid in pids for link in _open_files(pid)}
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()
    ]
    own = [line[1] for line in lines if line[3] == _LISTENING and f"socket:[{line[9]}]" in sockets]
    assert own, "none of them listens at all"
    return [address for address in own if address.partition(":")[0] not in _LOOPBACK]


def _open_files(pid: int) -> list[str]:
    try:
        return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []  # it has ended meanwhile, or closed one


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "?", 0
    return words[0], int(words[1])
