"""Builds and loads the storage room for the property test of the log (cffi, API mode).

The shim below turns the doors ``storage/storage.h`` and ``storage/log.h`` into calls on one log.
The extension is compiled from the sources of base, codec, wire and storage into ``build/property``
and compiled again when one of them is newer.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import cffi

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "native"
OUT = ROOT / "build" / "property"
NAME = "penstock_log_ffi"

CDEF = """
typedef struct shim shim;
shim *shim_open(const char *dir, int64_t segment_bytes, int64_t index_interval,
                int64_t retention_bytes, char *error, size_t error_size);
int shim_close(shim *s, int clean);
int shim_append(shim *s, int batches, int records, int value_size, int64_t tag, int64_t *base_out);
int shim_read(shim *s, int64_t from, int64_t end, int64_t max_bytes, int may_block,
              uint8_t *out, size_t capacity, size_t *size_out);
void shim_offsets(shim *s, int64_t out[4]);
int shim_delete_records(shim *s, int64_t offset, int64_t *start_out);
int shim_retention(shim *s);
int shim_flush(shim *s);
int64_t shim_find_time(shim *s, int64_t timestamp);
"""

SHIM = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/iopool.h"
#include "storage/log.h"
#include "storage/storage.h"

typedef struct shim {
    pst_iopool *pool;
    pst_storage *storage;
    pst_log *log;
    pst_log_config config;
} shim;

static shim *shim_open(const char *dir, int64_t segment_bytes, int64_t index_interval,
                       int64_t retention_bytes, char *error, size_t error_size) {
    const char *dirs[] = {dir};
    shim *s = calloc(1, sizeof *s);
    s->config = (pst_log_config){
        .segment_bytes = segment_bytes, .segment_ms = INT64_MAX, .segment_index_bytes = 1 << 20,
        .index_interval_bytes = index_interval, .retention_ms = -1,
        .retention_bytes = retention_bytes, .max_message_bytes = -1,
        .timestamp_before_max_ms = INT64_MAX, .timestamp_after_max_ms = INT64_MAX,
        .cleanup_policy = 1};
    pst_iopool_create(1, &s->pool);
    pst_storage_settings settings = {
        .dirs = dirs, .dir_count = 1, .iopool = s->pool, .file_cache_count = 8,
        .tail_pool_size = 65536, .producer_id_expiration_ms = 1 << 30, .producer_ids_max = 100};
    pst_log_spec spec = {.topic = pst_slice_str("topic"), .config = &s->config};
    spec.topic_id.bytes[0] = 1;
    int rc = pst_storage_open(&settings, error, error_size, &s->storage);
    if (rc == 0) {
        spec.storage = s->storage;
        rc = pst_log_open(&spec, &s->log);
    }
    return rc == 0 ? s : NULL;
}

static int shim_close(shim *s, int clean) {
    int rc = pst_log_close(s->log);
    int closed = pst_storage_close(s->storage, clean != 0);
    pst_iopool_destroy(s->pool);
    free(s);
    return rc < 0 ? rc : closed;
}

static int shim_append(shim *s, int batches, int records, int value_size, int64_t tag,
                       int64_t *base_out) {
    pst_byte_buffer bytes[16] = {{0}};
    pst_append appends[16];
    uint8_t *value = calloc(1, (size_t)value_size + 1);
    pst_slice v = pst_slice_of(value, (size_t)value_size);
    size_t size = 0;
    memset(appends, 0, sizeof appends);
    for (int i = 0; i < batches; i++) {
        pst_batch_builder b;
        pst_batch_builder_init(&b, &bytes[i]);
        for (int k = 0; k < records; k++) {
            pst_batch_builder_append(&b, tag + i, NULL, &v, NULL, 0);
        }
        pst_batch_builder_finish(&b);
        appends[i].data = bytes[i].data;
        appends[i].size = bytes[i].size;
        pst_batch_parse(pst_slice_of(bytes[i].data, bytes[i].size), &appends[i].view);
        size += bytes[i].size;
    }
    int rc;
    while ((rc = pst_log_append(s->log, appends, batches, tag)) == -PST_EAGAIN) {
        rc = pst_log_prepare(s->log, size, tag);
        if (rc < 0) {
            break;
        }
    }
    for (int i = 0; i < batches; i++) {
        rc = rc < 0 ? rc : appends[i].rc;
        pst_byte_buffer_fini(&bytes[i]);
    }
    free(value);
    *base_out = appends[0].base_offset;
    pst_log_offsets o;
    pst_log_get_offsets(s->log, &o);
    pst_log_advance_high_watermark(s->log, o.log_end);
    return rc;
}

static int shim_read(shim *s, int64_t from, int64_t end, int64_t max_bytes, int may_block,
                     uint8_t *out, size_t capacity, size_t *size_out) {
    pst_log_read_request r = {
        .copy_buffer = out, .copy_capacity = capacity / 2, .fetch_offset = from,
        .end_offset = end, .max_bytes = max_bytes, .min_one_batch = true,
        .may_block = may_block != 0};
    pst_log_slice slice;
    int rc = pst_log_read(s->log, &r, &slice);
    if (rc == -PST_EAGAIN) {
        r.may_block = true;
        rc = pst_log_read(s->log, &r, &slice);
    }
    *size_out = rc == 0 ? slice.copied : 0;
    if (rc == 0 && slice.range.file != NULL) {
        size_t n = (size_t)slice.range.size < capacity ? (size_t)slice.range.size : capacity;
        ssize_t got = pread(slice.range.file->fd, out, n, (off_t)slice.range.pos);
        *size_out = got < 0 ? 0 : (size_t)got;
        pst_file_unref(slice.range.file);
    }
    return rc;
}

static void shim_offsets(shim *s, int64_t out[4]) {
    pst_log_offsets o;
    pst_log_get_offsets(s->log, &o);
    out[0] = o.log_start;
    out[1] = o.last_stable;
    out[2] = o.high_watermark;
    out[3] = o.log_end;
}

static int shim_delete_records(shim *s, int64_t offset, int64_t *start_out) {
    return pst_log_delete_records(s->log, offset, start_out);
}

static int shim_retention(shim *s) {
    return pst_log_apply_retention(s->log, 1);
}

static int shim_flush(shim *s) {
    int rc = pst_log_flush(s->log);
    return rc < 0 ? rc : pst_storage_checkpoint(s->storage);
}

static int64_t shim_find_time(shim *s, int64_t timestamp) {
    int64_t offset;
    int64_t found;
    int rc = pst_log_offset_for_timestamp(s->log, timestamp, &offset, &found);
    return rc < 0 ? rc - 1000 : offset;
}
"""


def _sources() -> list[Path]:
    found = [path for room in ("base", "codec", "storage") for path in (NATIVE / room).glob("*.c")]
    found += [NATIVE / "wire" / "batch.c", NATIVE / "wire" / "batch_builder.c"]
    return sorted(found)


def _is_fresh(library: Path) -> bool:
    if not library.exists():
        return False
    built = library.stat().st_mtime
    inputs = [*_sources(), *NATIVE.glob("*/*.h"), Path(__file__)]
    return all(path.stat().st_mtime <= built for path in inputs)


def _build(library: Path) -> None:
    packages = ["liblz4", "libzstd", "snappy", "zlib"]
    command = ["pkg-config", "--libs", *packages]
    libs = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    builder = cffi.FFI()
    builder.cdef(CDEF)
    builder.set_source(
        NAME,
        SHIM,
        sources=[str(path) for path in _sources()],
        include_dirs=[str(NATIVE)],
        define_macros=[("_GNU_SOURCE", None)],
        extra_compile_args=["-std=c11", "-O1", "-g", "-w"],
        extra_link_args=[*libs, "-lpthread", "-lm"],
    )
    builder.compile(tmpdir=str(library.parent), target=library.name)


def load() -> Any:
    """The compiled module with ``ffi`` and ``lib``; building it takes some seconds."""
    OUT.mkdir(parents=True, exist_ok=True)
    library = OUT / f"{NAME}.so"
    if not _is_fresh(library):
        _build(library)
    spec = importlib.util.spec_from_file_location(NAME, library)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {library}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module
