"""A supervised crawler: fetchers in workers of their own, and a page that breaks one of them.

    python docs/examples/crawler.py                    # workers are processes
    python docs/examples/crawler.py --engine inline    # all on one thread

It serves a small site on the loopback, crawls it, and prints what it found. The page `/broken` makes a fetcher
crash: nobody else notices, its supervisor starts it again, and the frontier, which asked, writes down why.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.server
import re
import tempfile
import threading
import urllib.parse
import urllib.request
from collections.abc import Generator
from pathlib import Path

from exeunt.runtime import (
    Actor,
    ActorDead,
    BlockingActor,
    ChildSpec,
    Directories,
    ExeuntError,
    Message,
    RemoteFailure,
    Restart,
    Supervisor,
    WorkerSpec,
    receive,
)
from exeunt.runtime.engine import Kind

FETCHERS = 2


class Crawl(Message, frozen=True):
    """Crawl everything that can be reached from here on the same host. Answered by `Report`, at the end."""

    url: str


class Fetch(Message, frozen=True):
    """Fetch one page. Answered by `Page`."""

    url: str


class Page(Message, frozen=True):
    """A page, as far as the crawler needs it."""

    title: str
    links: tuple[str, ...]


class Report(Message, frozen=True):
    """What was found: a title, or what went wrong, by URL."""

    titles: dict[str, str]
    failures: dict[str, str]


MESSAGES = (Crawl, Fetch, Page, Report)
"""What may cross from one worker to another."""


class Fetcher(BlockingActor):
    """Fetches and reads pages. `urllib` blocks, so it has a thread of its own."""

    @receive(Fetch)
    def on_fetch(self, message: Fetch) -> Page:
        """Fetch a page. Whatever is wrong with it raises, and ends this actor; its successor is there at once."""
        with urllib.request.urlopen(message.url, timeout=5) as answer:  # noqa: S310 - of our own site
            text = answer.read().decode()
        (title,) = re.findall(r"<title>(.*?)</title>", text)  # the bug: not every page has one
        links = re.findall(r'href="(.*?)"', text)
        return Page(title, tuple(urllib.parse.urljoin(message.url, link) for link in links))


class Frontier(Actor):
    """Knows what was seen and what is still to do, and gives each fetcher one page at a time."""

    def __init__(self, fetchers: list[str]) -> None:
        super().__init__()
        self._fetchers = fetchers

    @receive(Crawl)
    async def on_crawl(self, message: Crawl) -> Report:
        """Go on until there is nothing left to fetch."""
        todo, seen = [message.url], {message.url}
        titles: dict[str, str] = {}
        failures: dict[str, str] = {}
        while todo:
            batch, todo = todo[: len(self._fetchers)], todo[len(self._fetchers) :]
            results = await asyncio.gather(*map(self._fetch, self._fetchers, batch))
            for url, result in zip(batch, results, strict=True):
                if isinstance(result, str):
                    failures[url] = result
                    continue
                titles[url] = result.title
                new = [link for link in result.links if link not in seen and _same_host(link, message.url)]
                seen.update(new)
                todo.extend(new)
        return Report(titles, failures)

    async def _fetch(self, fetcher: str, url: str) -> Page | str:
        """Return the page, or in words why there is none. A fetcher that is being restarted is waited for."""
        for delay_s in (0.01, 0.1, 1.0):
            try:
                page: Page = await self.node.ref(fetcher).ask(Fetch(url))
            except ActorDead:
                await asyncio.sleep(delay_s)
            except RemoteFailure as failure:
                return failure.failure.type
            except ExeuntError as error:
                return str(error)
            else:
                return page
        return "no fetcher"


def _same_host(url: str, other: str) -> bool:
    return urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(other).netloc


def program(home: Path, engine: Kind) -> Supervisor:
    """Describe the program: a worker for the frontier, one for each fetcher."""
    fetchers = [f"fetcher-{number}" for number in range(1, FETCHERS + 1)]
    return Supervisor(
        "crawler",
        workers=[WorkerSpec(name="main"), *(WorkerSpec(name=name) for name in fetchers)],
        children=[
            *(ChildSpec(id=name, worker=name, start="crawler:Fetcher") for name in fetchers),
            ChildSpec(
                id="frontier",
                worker="main",
                start="crawler:Frontier",
                args={"fetchers": [f"crawler/{name}/{name}" for name in fetchers]},
                restart=Restart.TEMPORARY,
            ),
        ],
        messages=["crawler:MESSAGES"],
        directories=Directories(ipc=home / "ipc", logs=home / "log", traces=home / "trace"),
        engine=engine,
    )


async def crawl(url: str, home: Path, engine: Kind = "processes") -> tuple[Report, dict[str, int]]:
    """Crawl from `url`; return what was found, and how often each child was restarted."""
    crawler = program(home, engine)
    await crawler.start()
    try:
        report: Report = await crawler.ref("frontier").ask(Crawl(url), timeout_s=60)
        return report, crawler.restarts
    finally:
        await crawler.leave()


# --- a site to crawl ---

SITE = {
    "/": '<title>Home</title><a href="/a"></a><a href="/broken"></a><a href="/b"></a><a href="http://elsewhere/"></a>',
    "/a": '<title>A</title><a href="/b"></a><a href="/missing"></a>',
    "/b": '<title>B</title><a href="/"></a><a href="/c"></a>',
    "/broken": "no title",
    "/c": "<title>C</title>",
}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = SITE.get(self.path)
        self.send_response(200 if page is not None else 404)
        self.end_headers()
        self.wfile.write((page or "<title>404</title>").encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


@contextlib.contextmanager
def site() -> Generator[str]:
    """Serve the site on the loopback; yield its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Crawl the site, and print a line for each page."""
    parser = argparse.ArgumentParser(description="Crawl a small site on the loopback, with supervised fetchers.")
    parser.add_argument("--engine", choices=["processes", "inline"], default="processes")
    engine: Kind = parser.parse_args().engine
    with site() as address, tempfile.TemporaryDirectory() as home:
        report, restarts = asyncio.run(crawl(address + "/", Path(home), engine))
    for url, title in sorted(report.titles.items()):
        print(f"{url.removeprefix(address):10} {title}")
    for url, why in sorted(report.failures.items()):
        print(f"{url.removeprefix(address):10} failed: {why}")
    print("restarts:", restarts)


if __name__ == "__main__":
    import crawler  # workers import this module by its name, so that the messages' types must be its types

    crawler.main()
