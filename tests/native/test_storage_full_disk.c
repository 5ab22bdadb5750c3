/* test_storage_full_disk.c - log.h (3): a full disk fails the append, reads go on, writing resumes.
 * Needs a small tmpfs of its own: skipped (exit 0) where a mount namespace is refused. */
#include <sched.h>
#include <sys/mount.h>

#include "storage_fixture.h"

static bool mount_small(const char *dir) {
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return false;
    }
    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return mount("tmpfs", dir, "tmpfs", 0, "size=512k") == 0;
}

static int fill(fixture *f) {
    int rc;
    while ((rc = append_rc(f, 1, 10000, 1000)) == 0) {
    }
    return rc;
}

static void test_append_fails_and_resumes(fixture *f) {
    pst_log_offsets before;
    pst_log_offsets after;
    char ballast[160];
    (void)snprintf(ballast, sizeof ballast, "%s/ballast", f->dir);
    int fd = open(ballast, O_WRONLY | O_CREAT, 0644);
    CHECK_EQ(write(fd, f->read_buffer, 200000), 200000);
    close(fd);
    fixture_open_storage(f);
    fixture_open_log(f);
    CHECK_EQ(fill(f), -PST_ENOSPC);
    pst_log_get_offsets(f->log, &before);
    CHECK_EQ(append_rc(f, 1, 10000, 1000), -PST_ENOSPC);
    pst_log_get_offsets(f->log, &after);
    CHECK_EQ(before.log_end, after.log_end);
    CHECK(pst_storage_dir_online(f->storage, 0));
    check_reads_everything(f, 0, after.log_end);
    struct stat st;
    char path[512];
    fixture_path(f, "00000000000000000000.log", path);
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(st.st_size, pst_log_size(f->log)); /* the partial bytes are gone */
    f->config.segment_bytes = 20000; /* a roll is due, and there is no room for its files either */
    CHECK_EQ(append_rc(f, 1, 10000, 1000), -PST_ENOSPC);
    CHECK(pst_storage_dir_online(f->storage, 0));
    check_reads_everything(f, 0, after.log_end);
    CHECK_EQ(unlink(ballast), 0); /* somebody makes room */
    CHECK_EQ(append_rc(f, 1, 10000, 1000), 0);
    check_reads_everything(f, 0, after.log_end + 1);
    fixture_reopen(f, true);
    pst_log_get_offsets(f->log, &before);
    check_reads_everything(f, before.log_start, before.log_end);
    fixture_close(f, true);
}

/* A producer's batch that did not reach the disk is not a duplicate when it comes again. */
static void test_producer_state_is_taken_back(fixture *f) {
    fixture_open_storage(f);
    fixture_open_log(f);
    pst_byte_buffer first = make_batch(1, 10, 1000, 9, 0, 0);
    pst_append a = make_append(&first);
    CHECK_EQ(append_array(f, &a, 1), 0);
    CHECK_EQ(a.rc, 0);
    CHECK_EQ(fill(f), -PST_ENOSPC);
    pst_byte_buffer big[2] = {make_batch(1, 20000, 1000, 9, 0, 1),
                              make_batch(1, 20000, 1000, 9, 0, 1)};
    pst_append twice[2] = {make_append(&big[0]), make_append(&big[1])};
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(append_array(f, twice, 2), 0);
        CHECK_EQ(twice[0].rc, -PST_ENOSPC);
        CHECK_EQ(twice[1].rc, -PST_ENOSPC); /* a repeat of what failed failed too */
    }
    pst_byte_buffer_fini(&first);
    pst_byte_buffer_fini(&big[0]);
    pst_byte_buffer_fini(&big[1]);
    CHECK_EQ(pst_log_delete(f->log), 0); /* makes room */
    fixture_close(f, true);
}

int main(void) {
    static fixture f;
    fixture_init(&f);
    if (!mount_small(f.dir)) {
        fprintf(stderr, "skipped: no mount namespace here\n");
        fixture_end(&f);
        return 0;
    }
    test_append_fails_and_resumes(&f);
    static fixture g;
    fixture_init(&g);
    CHECK(mount("tmpfs", g.dir, "tmpfs", 0, "size=512k") == 0);
    test_producer_state_is_taken_back(&g);
    return 0;
}
