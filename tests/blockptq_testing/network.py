"""Hosts of a small network, as network namespaces of this machine: nothing on it leaves them.

Needs `ip`, `unshare` and `nsenter`, and to be root or to be let make user namespaces; leaves nothing behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

# A user who is not root is root in a user namespace of the switch.
_AS_ROOT = os.geteuid() == 0


class NoNetworkError(RuntimeError):
    """Why this machine makes no network."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetworkError(f"{' '.join(command)}: {done.stderr.strip()}")


@contextmanager
def _namespace(*enter: str) -> Iterator[int]:
    """The process id of one that lives in a new network namespace; it ends when the pipe to it closes."""
    user = () if _AS_ROOT or enter else ("--user", "--map-root-user")
    command = [*enter, "unshare", "--net", *user, "sh", "-c", "echo; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stderr
        if not holder.stdout.readline():
            raise NoNetworkError(holder.stderr.read().decode().strip())
        yield holder.pid


def _inside(pid: int) -> tuple[str, ...]:
    """What runs the command behind it in the namespaces of `pid`."""
    user = () if _AS_ROOT else ("--user", "--preserve-credentials")
    return ("nsenter", "--target", str(pid), *user, "--net")


@dataclass(frozen=True)
class Host:
    """`enter`, in front of a command, runs it there."""

    address: str
    enter: tuple[str, ...]


class Network:
    """Hosts at one switch."""

    def __init__(self, switch: tuple[str, ...], hosts: Sequence[Host]) -> None:
        self._switch = switch
        self.hosts = hosts

    def unplug(self, host: int) -> None:
        """What the host sends and what it is sent gets lost; its connections stay open."""
        _run(*self._switch, "ip", "link", "set", f"port{host}", "down")

    def plug_in(self, host: int) -> None:
        _run(*self._switch, "ip", "link", "set", f"port{host}", "up")


@contextmanager
def network(size: int) -> Iterator[Network]:
    """`size` hosts; NoNetworkError where the machine makes none."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        raise NoNetworkError(f"{missing[0]}: not installed")
    with ExitStack() as stack:
        switch = _inside(stack.enter_context(_namespace()))
        _run(*switch, "ip", "link", "add", "switch", "type", "bridge")
        _run(*switch, "ip", "link", "set", "switch", "up")
        hosts = []
        for i in range(size):
            user = () if _AS_ROOT else switch[:-1]  # without --net
            pid = stack.enter_context(_namespace(*user))
            host = Host(f"10.0.0.{i + 1}", _inside(pid))
            _run(*switch, "ip", "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
            _run(*switch, "ip", "link", "set", f"port{i}", "master", "switch", "up")
            _run(*host.enter, "ip", "address", "add", f"{host.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _run(*host.enter, "ip", "link", "set", link, "up")
            hosts.append(host)
        yield Network(switch, hosts)
