/* storage/storage.h - the door of the room: log directories and what all logs in them share
 * (descriptor cache, tail pool, checkpoints, locks).
 * Owner: the engine opens and closes it; the functions below may be called from any thread unless
 * said. It knows files and offsets; it knows no connections and no Kafka API. */
#ifndef PST_STORAGE_STORAGE_H
#define PST_STORAGE_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/iopool.h"
#include "base/slice.h"

typedef struct pst_storage pst_storage;
typedef struct pst_log pst_log;

typedef struct {
    const char *const *dirs; /* absolute paths; must exist */
    int dir_count;           /* 1..16 */
    pst_iopool *iopool;      /* borrowed for the storage's life */
    int file_cache_count; /* descriptors kept open for segments (LRU; referenced files are skipped)
                           */
    int64_t tail_pool_size; /* bytes of recent batches kept in memory over all logs */
    int64_t producer_id_expiration_ms;
    int32_t producer_ids_max; /* over all logs; the oldest idle ones are evicted beyond it */
} pst_storage_settings;

/* Takes the OFD lock on each `.lock` (-PST_ELOCKED names the directory in `error_out`), removes and
 * remembers `.kafka_cleanshutdown`, reads the checkpoints, lists the partition directories that
 * exist. `error_out` (size >= 256) receives one sentence on failure. */
int pst_storage_open(const pst_storage_settings *settings, char *error_out, size_t error_size,
                     pst_storage **storage_out);

/* Every log must be closed. Writes checkpoints and, when `clean` and no directory failed, the
 * clean-shutdown marker (reliability rule 13); releases the locks. */
int pst_storage_close(pst_storage *storage, bool clean);

/* Writes recovery-point-offset-checkpoint and log-start-offset-checkpoint of every online directory
 * (write aside, fsync, rename, fsync the directory). I/O thread or control thread. */
int pst_storage_checkpoint(pst_storage *storage);

/* In a forked child, where the storage stays the parent's: closes the descriptors of the locks, and
 * nothing else. An OFD lock would otherwise outlive the parent in its children. */
void pst_storage_abandon(pst_storage *storage);

bool pst_storage_dir_online(pst_storage *storage, int dir_index);

typedef struct {
    int64_t total_bytes;
    int64_t usable_bytes;
    bool online;
} pst_storage_dir_info;
int pst_storage_get_dir_info(pst_storage *storage, int dir_index, pst_storage_dir_info *info_out);

/* Partition directories (`topic-N`) that lie in the log directories, for import and for strays:
 * calls `visit(context, dir_index, "topic-N")` for each. */
int pst_storage_visit_dirs(pst_storage *storage,
                           void (*visit)(void *context, int dir_index, const char *name),
                           void *context);

typedef struct {
    int64_t open_files;
    int64_t tail_bytes;
    int64_t producer_ids;
    int64_t logs;
    int64_t rolls;
    int64_t cold_reads;
} pst_storage_statistics;
void pst_storage_get_statistics(pst_storage *storage, pst_storage_statistics *statistics_out);

#endif
