"""Run folders: `run.json` first, `manifest.json` last by rename, one writer at a time, atomic files.

A stage opens its folder with `open_run`, looks at `run.state` and calls `run.finish` when every file is there.
Same key and a manifest: done. Same key without one: resume. Another key: refused unless `overwrite`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from tuneloop.errors import DataError, PrerequisiteError, UsageError

# Settings that cannot change a result are not part of a run's key.
KEYLESS = {
    "output_dir",
    "logging_steps",
    "num_workers",
    "executor",
    "report_to",
    "save_steps",
    "save_total_limit",
    "devices",
    "jobs",
    "trials",
    "parallel",
    "max_restarts",
    "gradient_checkpointing",
    "activation_offload",
    "limits",
    "base_url",
    "api_key_env",
    "timeout",
    "concurrency",
    "price",
}
PACKAGES = ("tuneloop", "torch", "transformers", "peft", "tokenizers", "datasets", "pyarrow", "numpy", "scipy")


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: Path | str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well, and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def disk_error(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(path.parent).free
        return PrerequisiteError(
            205,
            f"the disk is full ({free / 2**20:.0f} MiB free)",
            where=str(path),
            expected="room for the whole file; nothing half-written was left",
            cure="free some space and run the same command again: it resumes",
        )
    return PrerequisiteError(
        206,
        f"cannot write: {error.strerror or error}",
        where=str(path),
        cure="choose another folder with --out",
    )


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Around libraries that write below `path` themselves: what the disk refuses becomes a coded error."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        # safetensors tells what the system said in words only.
        full = any(sign in str(error) for sign in ("No space left", "os error 28", "Disk quota", "os error 27"))
        raise (disk_error(OSError(errno.ENOSPC, str(error)), path) if full else error) from error
    except OSError as error:
        raise disk_error(error, path) from error


def write_bytes(path: Path | str, data: bytes) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path | str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(110, "no such file", where=str(path), cure="check the path") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(300, f"not JSON: {error}", where=str(path), expected="one JSON value, UTF-8") from error


def append_jsonl(path: Path | str, value: object) -> None:
    """One object a line, flushed, so that another process can read along."""
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    except OSError as error:
        raise disk_error(error, Path(path)) from error


def read_jsonl(path: Path | str) -> list[Any]:
    """All whole lines; a last line that a kill cut short is left out."""
    rows = []
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_table(path: Path | str, table: Any) -> None:
    """`table` is a `pyarrow.Table`."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path | str) -> Any:
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise UsageError(110, "no such file", where=str(path), cure="check the path")
    try:
        # partitioning=None: a folder named 'a=b' above the file must not become a column.
        return pq.read_table(path, partitioning=None)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(
            301, f"broken Parquet file: {str(error).splitlines()[0]}", where=str(path), expected="a whole Parquet file",
            cure="run the stage that wrote it again, with --overwrite",
        ) from error  # fmt: skip


def input_hash(value: str | Path) -> str:
    """Hash of an input: a run folder by its manifest, a file by content, a folder by its files, else the string."""
    path = Path(value)
    try:
        if path.is_dir():
            manifest = path / "manifest.json"
            return sha256_file(manifest) if manifest.is_file() else _folder_hash(path)
        if path.is_file():
            return sha256_file(path)
    except OSError as error:
        raise disk_error(error, path) from error
    return sha256_text(str(value))


def _folder_hash(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return sha256_text("\n".join(f"{p.relative_to(folder)} {sha256_file(p)}" for p in files))


def run_key(stage: str, schema: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    text = json.dumps([stage, schema, _keyed(config), dict(inputs)], sort_keys=True, default=str)
    return sha256_text(text)


def _keyed(value: Any) -> Any:
    """The settings that can change a result, at every depth."""
    if isinstance(value, Mapping):
        return {name: _keyed(inner) for name, inner in value.items() if name not in KEYLESS}
    return value


class Run:
    """An open run folder. `state` is 'new', 'resume' or 'done'."""

    def __init__(self, path: Path, header: dict[str, Any], state: str) -> None:
        self.path, self.header, self.state = path, header, state
        self.started = time.time()

    def finish(self, **extra: Any) -> dict[str, Any]:
        """Writes the manifest; after this line the run counts as done."""
        files = {
            str(p.relative_to(self.path)): sha256_file(p)
            for p in sorted(self.path.rglob("*"))
            if p.is_file() and not p.name.startswith(".") and p.name != "manifest.json" and not _nested(p, self.path)
        }
        manifest = {
            **self.header,
            "seconds": round(time.time() - self.started, 3),
            "packages": package_versions(),
            "hardware": hardware(),
            "cost_usd": None,
            **extra,
            "files": files,
        }
        write_json(self.path / "manifest.json", manifest)
        self.state = "done"
        return manifest


def _nested(path: Path, top: Path) -> bool:
    """True below an inner run folder, which has a manifest of its own."""
    return any((parent / "manifest.json").is_file() for parent in path.parents if top in parent.parents)


def package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


@contextmanager
def open_run(
    out: Path | str,
    *,
    stage: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str | Path],
    schema: int = 1,
    overwrite: bool = False,
    own: Collection[str] = (),
) -> Iterator[Run]:
    """Opens `out` for one stage, with its lock held inside the block.

    `own` names what may stand in `out` before the run and outlives another one: inner runs and parts, which have keys
    of their own, and ledgers.
    """
    out = Path(out)
    hashes = {name: input_hash(value) for name, value in inputs.items()}
    key = run_key(stage, schema, config, hashes)
    _make_folder(out)
    with _lock(out):
        state = _state(out, key, stage, overwrite, own)
        header = {
            "stage": stage,
            "schema": schema,
            "key": key,
            "config": dict(config),
            "inputs": {name: {"name": str(value), "sha256": hashes[name]} for name, value in inputs.items()},
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if state == "new":
            write_json(out / "run.json", header)
        yield Run(out, header, state)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(
            111,
            "the output path is a file",
            where=str(out),
            cure="choose a folder with --out",
        ) from error
    except OSError as error:
        raise disk_error(error, out) from error


def _state(out: Path, key: str, stage: str, overwrite: bool, own: Collection[str]) -> str:
    header_path = out / "run.json"
    if not header_path.is_file():
        strangers = [p.name for p in out.iterdir() if not p.name.startswith(".") and p.name not in own]
        if strangers and not overwrite:
            raise UsageError(
                112,
                f"the output folder is not empty ({', '.join(sorted(strangers)[:3])})",
                where=str(out),
                expected="a new folder, or one that this stage wrote",
                cure="choose another folder with --out",
            )
        return "new"
    header = read_json(header_path)
    others = [p for p in out.iterdir() if p.name != "run.json" and p.name not in own and not p.name.startswith(".")]
    if header.get("key") != key and not others:
        return "new"  # a start that failed before it wrote anything that could be lost
    if header.get("key") == key:
        return "done" if (out / "manifest.json").is_file() else "resume"
    if not overwrite:
        raise UsageError(
            113,
            f"the output folder holds another run (stage '{header.get('stage')}', started {header.get('started')})",
            where=str(out),
            expected=f"an empty folder, or the same '{stage}' run with the same config and inputs",
            cure="choose another --out, or add --overwrite to replace it",
        )
    for path in out.iterdir():
        if path.name != ".lock" and path.name not in own:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "new"


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Held by the open file, so the system frees it however the process ends."""
    with open(out / ".lock", "a+b") as file:
        if not _try_lock(file):
            raise UsageError(
                114,
                "another process is writing here",
                where=str(out),
                cure="wait for it, or choose another --out",
            )
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def require_run(folder: Path | str, stage: str) -> dict[str, Any]:
    """The manifest of a finished run of `stage`, or a coded error that says what the folder is instead."""
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise UsageError(
            115,
            f"not a '{stage}' folder",
            where=str(folder),
            cure=f"give a folder that `tuneloop {stage}` wrote",
        )
    header = read_json(folder / "run.json")
    if header.get("stage") != stage:
        raise UsageError(
            115,
            f"a '{header.get('stage')}' folder, not a '{stage}' folder",
            where=str(folder),
            cure=f"give a folder that `tuneloop {stage}` wrote",
        )
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            116,
            f"the '{stage}' run here is unfinished",
            where=str(folder),
            cure="run the same command again: it resumes",
        )
    manifest: dict[str, Any] = read_json(folder / "manifest.json")
    return manifest
