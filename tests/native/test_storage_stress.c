/* test_storage_stress.c - appends, reads, rolls, retention, flush and checkpoints from several
 * threads at once. Meant for TSan and ASan; every batch that is read back must be whole and in
 * order. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "storage_fixture.h"

enum { APPENDERS = 2, READERS = 2, LOGS = 3 };

typedef struct {
    fixture *f;
    pst_log *logs[LOGS];
    pthread_mutex_t prepare[LOGS];
    atomic_bool stop;
    atomic_llong appended;
    atomic_llong read;
} stress;

typedef struct {
    stress *s;
    int number;
} worker;

static void append_one(stress *s, int log, int64_t producer, int32_t sequence, size_t size) {
    pst_byte_buffer bytes[2];
    pst_append a[2];
    for (int i = 0; i < 2; i++) {
        bytes[i] = make_batch(2, size, pst_wall_ms(), producer, 0, sequence + 2 * i);
        a[i] = make_append(&bytes[i]);
    }
    int rc;
    while ((rc = pst_log_append(s->logs[log], a, 2, pst_wall_ms())) == -PST_EAGAIN) {
        pthread_mutex_lock(&s->prepare[log]);
        CHECK_EQ(pst_log_prepare(s->logs[log], bytes[0].size * 2, pst_wall_ms()), 0);
        pthread_mutex_unlock(&s->prepare[log]);
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(a[0].rc, 0);
    CHECK_EQ(a[1].rc, 0);
    CHECK(a[1].base_offset == a[0].base_offset + 2);
    pst_log_advance_high_watermark(s->logs[log], a[1].base_offset + 2);
    atomic_fetch_add(&s->appended, 4);
    pst_byte_buffer_fini(&bytes[0]);
    pst_byte_buffer_fini(&bytes[1]);
}

static void *appender(void *arg) {
    worker *w = arg;
    int32_t sequence[LOGS] = {0};
    for (unsigned i = 0; !atomic_load(&w->s->stop); i++) {
        int log = (int)(i % LOGS);
        append_one(w->s, log, 100 + w->number, sequence[log], i % 50 == 0 ? 20000 : 50 + i % 300);
        sequence[log] += 4;
    }
    return NULL;
}

/* Follows one log; a start that moved away is caught up with. */
static void *reader(void *arg) {
    worker *w = arg;
    uint8_t *buffer = malloc(65536);
    int64_t at[LOGS] = {0};
    for (unsigned i = 0; !atomic_load(&w->s->stop); i++) {
        int n = (int)(i % LOGS);
        pst_log *log = w->s->logs[n];
        pst_log_offsets o;
        pst_log_get_offsets(log, &o);
        CHECK(o.log_start <= o.high_watermark && o.high_watermark <= o.log_end);
        pst_log_read_request r = {.copy_buffer = buffer,
                                  .copy_capacity = (size_t)(w->number == 0 ? 65536 : 0),
                                  .fetch_offset = at[n],
                                  .end_offset = o.high_watermark,
                                  .max_bytes = 30000,
                                  .min_one_batch = true};
        pst_log_slice s;
        int rc = pst_log_read(log, &r, &s);
        if (rc == -PST_EAGAIN) {
            r.may_block = true;
            rc = pst_log_read(log, &r, &s);
        }
        if (rc == -PST_EOFFSET) {
            pst_log_get_offsets(log, &o);
            CHECK(at[n] < o.log_start);
            at[n] = o.log_start;
            continue;
        }
        CHECK_EQ(rc, 0);
        size_t size = s.copied;
        if (s.range.file != NULL) {
            CHECK(s.range.size <= 65536);
            CHECK_EQ(pread(s.range.file->fd, buffer, (size_t)s.range.size, s.range.pos),
                     s.range.size);
            size = (size_t)s.range.size;
            pst_file_unref(s.range.file);
        }
        pst_slice left = pst_slice_of(buffer, size);
        pst_batch b;
        while (left.size > 0 && pst_batch_parse(left, &b) == 0) {
            CHECK_EQ(pst_batch_check_crc(&b), 0);
            CHECK(b.base_offset <= at[n]);
            CHECK(pst_batch_last_offset(&b) >= at[n]);
            CHECK(pst_batch_last_offset(&b) < o.high_watermark);
            at[n] = pst_batch_last_offset(&b) + 1;
            atomic_fetch_add(&w->s->read, 1);
            left = pst_slice_of(left.data + b.size, left.size - b.size);
        }
    }
    free(buffer);
    return NULL;
}

static void *keeper(void *arg) {
    worker *w = arg;
    for (unsigned i = 0; !atomic_load(&w->s->stop); i++) {
        pst_log *log = w->s->logs[i % LOGS];
        int64_t offset;
        int64_t ts;
        CHECK(pst_log_apply_retention(log, pst_wall_ms()) >= 0);
        CHECK_EQ(pst_log_offset_for_timestamp(log, pst_wall_ms() - 5, &offset, &ts), 0);
        CHECK(pst_log_size_between(log, 0, 1 << 20) >= 0);
        if (i % 4 == 0) {
            CHECK_EQ(pst_log_flush(log), 0);
            CHECK_EQ(pst_storage_checkpoint(w->s->f->storage), 0);
        }
        usleep(2000);
    }
    return NULL;
}

int main(void) {
    fixture f;
    fixture_init(&f);
    f.config.segment_bytes = 200000;
    f.config.retention_bytes = 600000;
    f.config.index_interval_bytes = 1000;
    f.config.file_delete_delay_ms = 1;
    fixture_open_storage(&f);
    stress s = {.f = &f};
    pthread_t threads[APPENDERS + READERS + 1];
    worker workers[APPENDERS + READERS + 1];
    for (int i = 0; i < LOGS; i++) {
        pst_log_spec spec = fixture_spec(&f);
        spec.partition = i;
        CHECK_EQ(pst_log_open(&spec, &s.logs[i]), 0);
        pthread_mutex_init(&s.prepare[i], NULL);
    }
    int n = 0;
    for (int i = 0; i < APPENDERS; i++, n++) {
        workers[n] = (worker){&s, i};
        pthread_create(&threads[n], NULL, appender, &workers[n]);
    }
    for (int i = 0; i < READERS; i++, n++) {
        workers[n] = (worker){&s, i};
        pthread_create(&threads[n], NULL, reader, &workers[n]);
    }
    workers[n] = (worker){&s, 0};
    pthread_create(&threads[n], NULL, keeper, &workers[n]);
    n++;
    const char *ms = getenv("STRESS_MS");
    usleep((useconds_t)(ms != NULL ? atoi(ms) : 1500) * 1000);
    atomic_store(&s.stop, true);
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(atomic_load(&s.read) > 0);
    for (int i = 0; i < LOGS; i++) {
        pst_log_offsets before;
        pst_log_get_offsets(s.logs[i], &before);
        CHECK_EQ(pst_log_close(s.logs[i]), 0);
        pst_log_spec spec = fixture_spec(&f);
        spec.partition = i;
        CHECK_EQ(pst_log_open(&spec, &s.logs[i]), 0);
        pst_log_offsets after;
        pst_log_get_offsets(s.logs[i], &after);
        CHECK_EQ(after.log_end, before.log_end);
        CHECK_EQ(after.log_start, before.log_start);
        CHECK_EQ(pst_log_close(s.logs[i]), 0);
    }
    CHECK_EQ(pst_storage_close(f.storage, true), 0);
    fixture_end(&f);
    return 0;
}
