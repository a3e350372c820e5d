"""Reads a run's page back: its marks, tables and images; refuses markup that is not balanced."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd

import pocketfleet
from pocketfleet import Bundle, Experiment, Run

__all__ = ["PageReader", "small_run"]

_VOID = {"meta", "br"}


class PageReader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, str] = {}
        self.shown: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.csv: dict[str, pd.DataFrame] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag in _VOID:
            return
        self.open.append((tag, found))
        if "data-figure" in found:
            self.figures[str(found["data-figure"])] = str(found.get("data-value", ""))
            self.shown[str(found["data-figure"])] = ""
        if tag == "table":
            self.tables[str(found["data-table"])] = []
        if tag == "tr":
            list(self.tables.values())[-1].append([])
        if tag == "td":
            list(self.tables.values())[-1][-1].append(str(found.get("data-value", "")))
        if "data-csv" in found:
            content = base64.b64decode(str(found["href"]).partition("base64,")[2])
            self.csv[str(found["data-csv"])] = pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, found in self.open:
            if "data-figure" in found:
                self.shown[str(found["data-figure"])] += data


def small_run(bundle: Bundle, out: Path, *settings: str) -> Run:
    given = [f"task.bundle='{bundle.path}'", "rounds.count=5", "training.batch_size=8", "training.momentum=0.0"]
    return pocketfleet.simulate(Experiment.load("boston-fleet", [*given, *settings]), out)
