"""Read a run-*.wandb file: protobuf records in LevelDB's log format (32 KiB blocks, fragments with 7-byte headers)."""

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Every record of the file, in order."""
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, whole = HEADER, b""
    while position + HEADER <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER:  # a block's tail too short for a header is padding
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + HEADER])
        if position + HEADER + size > len(data):  # still being written
            return
        whole += data[position + HEADER : position + HEADER + size]
        position += HEADER + size
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


@dataclass(frozen=True)
class Content:
    """What an offline run holds for `wandb sync`."""

    run: wandb_internal_pb2.RunRecord
    history: list[dict]
    """Rows; a nested key is joined with slashes."""
    summary: dict
    definitions: list[wandb_internal_pb2.MetricRecord]
    artifacts: list[str]
    exit_code: int


def content(path: Path) -> Content:
    """The whole file of a run that has ended; wandb's own process may write its end after `finish` has returned."""
    for _ in range(300):
        found: dict[str, list] = {}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            found.setdefault(kind, []).append(getattr(record, kind))
        if "exit" in found:
            break
        time.sleep(0.1)

    def values(items) -> dict:
        return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

    summary = {}
    for change in found.get("summary", []):
        summary |= values(change.update)
    return Content(
        run=found["run"][0],
        history=[values(row.item) for row in found.get("history", [])],
        summary=summary,
        definitions=found.get("metric", []),
        artifacts=[artifact.name for artifact in found.get("artifact", [])],
        exit_code=found["exit"][0].exit_code,
    )


def offline_runs(folder: Path) -> list[Content]:
    """The parts of a run, oldest first."""
    return [content(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]
