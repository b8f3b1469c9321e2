"""Where metrics are served: the endpoint's life, and registries of one's own."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    PATIENCE,
    Background,
    Echo,
    Recorder,
    connect,
    descriptors,
    receive_exactly,
    wait,
)
from prometheus_client import CollectorRegistry, generate_latest
from scraping import LOCAL, Scrape, answered, ask, measured, scrape, settle

from gevffi import Address, Handler, Server
from gevffi.metrics import ServerCollector

ROOT = Path(__file__).parent.parent


def test_the_address_is_the_real_one_while_it_runs() -> None:
    server = Server(Handler(), LOCAL, metrics_address=LOCAL)
    assert str(server.metrics_address) == LOCAL
    with server.running():
        assert server.metrics_address is not None
        assert server.metrics_address.host == "127.0.0.1"
        assert server.metrics_address.port not in (0, server.address.port)
    assert str(server.metrics_address) == LOCAL
    assert Server(Handler(), LOCAL).metrics_address is None


@pytest.mark.parametrize("address", ["[::1]:0", ":0", ("127.0.0.1", 0), Address("localhost", 0)])
def test_addresses(address: Any) -> None:
    if address == "[::1]:0":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
    with Server(Handler(), LOCAL, metrics_address=address).running() as server:
        assert server.metrics_address is not None
        host, port = server.metrics_address
        where = Address("127.0.0.1" if address == ":0" else host, port)
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=PATIENCE) as response:
            assert b"gevffi_connections_open" in response.read()


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "unix:/tmp/m", 9091, "", True])
def test_a_bad_address_is_named(address: Any) -> None:
    with pytest.raises(ValueError, match="metrics_address must be") as caught:
        Server(Handler(), LOCAL, metrics_address=address)
    assert repr(address) in str(caught.value)


def test_a_port_in_use_is_named_and_nothing_is_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        server = Server(Handler(), LOCAL, metrics_address=address)
        ran = threading.Event()
        server.run_after(0, ran.set)
        answered()  # those of the test before
        before, threads = descriptors(), threading.enumerate()
        for _ in range(2):
            with pytest.raises(OSError, match=f"metrics on {address}: .*in use") as caught:
                server.start()
            assert caught.value.errno == errno.EADDRINUSE
            assert descriptors() == before
            assert threading.enumerate() == threads
            assert not server.loops
    with server.running():  # it is free now
        assert str(server.metrics_address) == address
        wait(ran)
        assert scrape(server)("connections_open") == 0


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 70 + ".b"])
def test_a_host_that_is_not_ours_is_named(host: str) -> None:
    server = Server(Handler(), LOCAL, metrics_address=f"{host}:0")
    with pytest.raises(OSError, match=f"cannot serve metrics on {host}:0: "), server.running():
        pass
    assert not server.loops


def test_a_server_that_cannot_listen_serves_no_metrics() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        server = Server(Handler(), address, metrics_address=LOCAL)
        before = descriptors()
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            server.start()
        assert descriptors() == before


def test_stop_closes_it_and_a_restart_counts_anew() -> None:
    server = Server(Echo(), LOCAL, metrics_address=LOCAL)
    answered()  # those of the test before
    threads = threading.enumerate()
    for _ in range(3):
        with server.running():
            address = server.metrics_address
            assert address is not None
            assert address.port is not None
            with connect(server) as sock:
                assert scrape(server)("bytes_received_total") == 0
                ask(sock, b"hello")
                settle(server)
                assert scrape(server)("bytes_received_total") == 5
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port), PATIENCE)
        answered()
        assert threading.enumerate() == threads


def test_it_is_there_until_the_last_connection_has_closed() -> None:
    handler = Recorder(lambda data: bytes(8 << 20))
    # No deadline that this test might miss.
    server = Server(handler, LOCAL, metrics_address=LOCAL, close_timeout=PATIENCE)
    up = threading.Event()
    server.run_after(0, up.set)
    starter = Background(server.start)
    wait(up)
    with connect(server) as sock:
        sock.sendall(b"go")
        handler.until("high_water")
        stopper = Background(server.stop)
        with contextlib.suppress(ConnectionError):  # until it has begun to stop
            while True:
                connect(server).close()
        while scrape(server)("connections_open") != 1:
            pass  # those that were just let in are on their way out
        receive_exactly(sock, 8 << 20)
    stopper.join()
    starter.join()
    assert server.metrics_address == ("127.0.0.1", 0)


def test_an_idle_scraper_holds_nobody_up() -> None:
    with measured(Handler()) as server:
        assert server.metrics_address is not None
        silent = connect(server.metrics_address)
        assert scrape(server)("connections_open") == 0
    silent.close()


# ---- collectors ---------------------------------------------------------------------------------


def read_registry(registry: CollectorRegistry) -> Scrape:
    return Scrape(generate_latest(registry).decode())


def test_a_registry_of_ones_own() -> None:
    registry = CollectorRegistry(auto_describe=True)
    server = Server(Echo(), LOCAL)
    registry.register(ServerCollector(server))
    assert read_registry(registry).samples == {}
    for _ in range(2):
        with server.running(), connect(server) as sock:
            ask(sock, b"hello")
            settle(server)
            assert read_registry(registry)("bytes_sent_total") == 5
        assert read_registry(registry).samples == {}


def test_two_servers_in_one_process() -> None:
    with measured(Echo()) as one, measured(Echo()) as two:
        assert one.metrics_address != two.metrics_address
        with connect(one) as sock:
            ask(sock, b"one")
        with connect(two) as sock:
            ask(sock, b"two!")
        settle(one)
        settle(two)
        assert scrape(one)("bytes_received_total") == 3
        assert scrape(two)("bytes_received_total") == 4
        registry = CollectorRegistry()
        registry.register(ServerCollector(one))
        with pytest.raises(ValueError, match="Duplicated"):
            registry.register(ServerCollector(two))
        registry.register(ServerCollector(two, namespace="second"))
        samples = read_registry(registry).samples
        loop = frozenset({("loop", "loop-0")})
        assert samples["gevffi_bytes_received_total", loop] == 3
        assert samples["second_bytes_received_total", loop] == 4


def test_the_metrics_are_those_of_the_documentation() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text()
    documented = dict(re.findall(r"^\| `(gevffi_\w+)` \| (\w+) \|", text, re.M))
    with measured(Handler()) as server:
        families = scrape(server).families.values()
    suffixes = {"counter": "_total"}
    served = {family.name + suffixes.get(family.type, ""): family.type for family in families}
    assert documented == served
    assert len(served) == 21
    for family in families:
        assert family.documentation


# ---- without the package ------------------------------------------------------------------------


def test_without_the_option_the_package_is_not_imported() -> None:
    code = (
        "import sys, gevffi\n"
        "gevffi.Server(gevffi.Handler(), '127.0.0.1:0')\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "gevffi.Server(gevffi.Handler(), '127.0.0.1:0', metrics_address='127.0.0.1:0')\n"
        "assert 'prometheus_client' in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=PATIENCE)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gevffi.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"prometheus-client: pip install 'gevffi\[metrics\]'"):
        Server(Handler(), LOCAL, metrics_address=LOCAL)
    Server(Handler(), LOCAL)
