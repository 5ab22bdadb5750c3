/* Exchanges: request order whoever finishes first, barriers, death, stop. */
#include <pthread.h>

#include "test_reactor_support.h"

/* ---- answers from other threads, by token and note, in random order ---- */

typedef struct {
    pst_note note;
    pst_token token;
    size_t size;
    uint8_t data[64];
} answer;

enum { ANSWERS = 3000, CLIENTS = 4 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static answer *parked[64 * CLIENTS];
static int parked_count;
static bool parking_ends;
static atomic_int lost_tokens;

static int parked_now(void) {
    pthread_mutex_lock(&lock);
    int count = parked_count;
    pthread_mutex_unlock(&lock);
    return count;
}

static void answer_run(pst_note *note, pst_reactor *reactor) {
    answer *a = PST_CONTAINER_OF(note, answer, note);
    pst_exchange *exchange = pst_net_exchange(reactor, a->token);
    if (exchange == NULL) {
        atomic_fetch_add(&lost_tokens, 1);
    } else {
        CHECK(pst_exchange_reactor(exchange) == reactor);
        echo_now(exchange, a->data, a->size);
        CHECK(pst_net_exchange(reactor, a->token) == NULL); /* finished: the token is stale */
    }
    free(a);
}

static void park_frame(void *context, pst_reactor *reactor, pst_conn *conn, pst_exchange *exchange,
                       uint8_t *data, size_t size) {
    (void)context, (void)reactor, (void)conn;
    if (data[0] == '!') { /* some are answered at once */
        echo_now(exchange, data, size);
        return;
    }
    answer *a = calloc(1, sizeof *a);
    a->note.run = answer_run;
    a->token = pst_exchange_token(exchange);
    a->size = size;
    memcpy(a->data, data, size);
    pthread_mutex_lock(&lock);
    CHECK(parked_count < 64 * CLIENTS);
    parked[parked_count++] = a;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void *answer_thread(void *arg) {
    pst_net *net = arg;
    uint32_t random = 7;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (parked_count == 0 && !parking_ends) {
            pthread_cond_wait(&wake, &lock);
        }
        if (parked_count == 0) {
            break;
        }
        random = random * 1664525u + 1013904223u;
        int i = (int)((random >> 16) % (uint32_t)parked_count);
        answer *a = parked[i];
        parked[i] = parked[--parked_count];
        pthread_mutex_unlock(&lock);
        pst_reactor_post(pst_token_reactor(net, a->token), &a->note);
        pthread_mutex_lock(&lock);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void *client_thread(void *arg) {
    pst_net *net = arg;
    int fd = test_connect(net);
    int sent = 0;
    for (int received = 0; received < ANSWERS;) {
        while (sent < ANSWERS && sent < received + 40) {
            char text[32];
            int size = snprintf(text, sizeof text, "%crequest %d", sent % 3 == 0 ? '!' : '?', sent);
            send_frame(fd, text, (uint32_t)size);
            sent++;
        }
        char text[32];
        int size =
            snprintf(text, sizeof text, "%crequest %d", received % 3 == 0 ? '!' : '?', received);
        expect_frame(fd, text, (uint32_t)size);
        received++;
    }
    close(fd);
    return NULL;
}

static void test_order_with_answers_from_threads(void) {
    pst_net_handler handler = {.on_frame = park_frame};
    pst_net *net = test_net(handler, test_limits(), 2, NULL);
    pthread_t answerers[2];
    pthread_t clients[CLIENTS];
    for (int i = 0; i < 2; i++) {
        pthread_create(&answerers[i], NULL, answer_thread, net);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_create(&clients[i], NULL, client_thread, net);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i], NULL);
    }
    pthread_mutex_lock(&lock);
    parking_ends = true;
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < 2; i++) {
        pthread_join(answerers[i], NULL);
    }
    CHECK_EQ(atomic_load(&lost_tokens), 0);
    pst_net_destroy(net);
}

/* ---- a client that dies with open exchanges; tokens still find them ---- */

static void test_dead_connection_keeps_open_exchanges(void) {
    parking_ends = false;
    pst_net_handler handler = {.on_frame = park_frame};
    pst_net *net = test_net(handler, test_limits(), 1, NULL);
    int fd = test_connect(net);
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    for (int i = 0; i < 5; i++) {
        send_frame(fd, "?open", 5);
    }
    WAIT_UNTIL(parked_now() == 5);
    close(fd);
    pst_net_statistics s;
    WAIT_UNTIL((pst_net_get_statistics(net, &s), s.connections == 0));
    pthread_mutex_lock(&lock);
    parking_ends = true;
    pthread_mutex_unlock(&lock);
    answer_thread(net);
    pst_net_destroy(net); /* its stop runs the notes at the latest */
    CHECK_EQ(atomic_load(&lost_tokens), 0);
}

/* ---- barrier ---- */

static atomic_int frames_seen;
static pst_conn *held_conn;

static void resume_run(pst_note *note, pst_reactor *reactor) {
    (void)note, (void)reactor;
    pst_conn_resume(held_conn);
}

static void hold_frame(void *context, pst_reactor *reactor, pst_conn *conn, pst_exchange *exchange,
                       uint8_t *data, size_t size) {
    (void)context, (void)reactor;
    atomic_fetch_add(&frames_seen, 1);
    if (data[0] == 'H') {
        pst_conn_hold(conn);
        held_conn = conn;
    }
    echo_now(exchange, data, size);
}

static void test_barrier_holds_later_frames(void) {
    pst_net_handler handler = {.on_frame = hold_frame};
    pst_net *net = test_net(handler, test_limits(), 1, NULL);
    int fd = test_connect(net);
    uint8_t big[30000] = {'b'};
    send_frame(fd, "a", 1);
    send_frame(fd, "H", 1);
    for (int i = 0; i < 20; i++) {
        send_frame(fd, big, sizeof big);
    }
    send_frame(fd, "H", 1);
    send_frame(fd, "z", 1);
    expect_frame(fd, "a", 1);
    expect_frame(fd, "H", 1);
    int other = test_connect(net);
    send_frame(other, "x", 1);
    expect_frame(other, "x", 1);
    CHECK_EQ(atomic_load(&frames_seen), 3);
    pst_note note = {.run = resume_run};
    pst_reactor_post(pst_net_reactor(net, 0), &note);
    for (int i = 0; i < 20; i++) {
        expect_frame(fd, big, sizeof big);
    }
    expect_frame(fd, "H", 1);
    pst_note again = {.run = resume_run};
    pst_reactor_post(pst_net_reactor(net, 0), &again);
    expect_frame(fd, "z", 1);
    close(other);
    close(fd);
    pst_net_destroy(net);
}

/* ---- no response (acks=0), close_connection, responses of many parts ---- */

static void special_frame(void *context, pst_reactor *reactor, pst_conn *conn,
                          pst_exchange *exchange, uint8_t *data, size_t size) {
    (void)context, (void)reactor, (void)conn;
    if (data[0] == 'n') {
        pst_exchange_finish(exchange, false);
    } else if (data[0] == 'c') {
        pst_exchange_close_connection(exchange);
    } else if (data[0] == 'm') {
        for (size_t i = 0; i < 300; i++) {
            uint8_t *out = pst_exchange_reserve(exchange, 200);
            memset(out, (int)i, 200);
            pst_exchange_trim(exchange, 100);
            if (i % 10 == 9) {
                uint8_t *owned = malloc(500);
                memset(owned, (int)i, 500);
                CHECK_EQ(pst_exchange_add_owned(exchange, owned, 500), 0);
            }
        }
        uint8_t *large = pst_exchange_reserve(exchange, 100000);
        memset(large, 'L', 100000);
        CHECK_EQ(pst_exchange_size(exchange), 300 * 100 + 30 * 500 + 100000);
        pst_exchange_finish(exchange, true);
    } else {
        uint8_t *out = pst_exchange_reserve(exchange, 77);
        memset(out, 0, 77);
        pst_exchange_reset(exchange);
        echo_now(exchange, data, size);
    }
}

static void test_kinds_of_finish(void) {
    pst_net_handler handler = {.on_frame = special_frame};
    pst_net *net = test_net(handler, test_limits(), 1, NULL);
    int fd = test_connect(net);
    send_frame(fd, "n", 1);
    send_frame(fd, "1", 1);
    send_frame(fd, "n", 1);
    send_frame(fd, "m", 1);
    send_frame(fd, "2", 1);
    expect_frame(fd, "1", 1);
    enum { MANY = 300 * 100 + 30 * 500 + 100000 };
    uint8_t *many = malloc(MANY);
    size_t at = 0;
    for (size_t i = 0; i < 300; i++) {
        memset(many + at, (int)i, 100);
        at += 100;
        if (i % 10 == 9) {
            memset(many + at, (int)i, 500);
            at += 500;
        }
    }
    memset(many + at, 'L', 100000);
    expect_frame(fd, many, MANY);
    expect_frame(fd, "2", 1);
    static const uint8_t burst[] = {0, 0, 0, 1, '3', 0, 0, 0, 1, 'c', 0, 0, 0, 1, '4'};
    test_send(fd, burst, sizeof burst);
    expect_frame(fd, "3", 1); /* earlier responses leave before the end */
    expect_closed(fd);
    free(many);
    pst_net_destroy(net);
}

/* ---- stop ---- */

static void test_stop_answers_what_is_open(void) {
    parking_ends = false;
    pst_net_handler handler = {.on_frame = park_frame};
    pst_net *net = test_net(handler, test_limits(), 2, NULL);
    int idle = test_connect(net);
    int fd = test_connect(net);
    send_frame(fd, "?late", 5);
    WAIT_UNTIL(parked_now() == 1);
    pthread_t answerer;
    pthread_mutex_lock(&lock); /* the answer comes only after the stop began */
    pthread_create(&answerer, NULL, answer_thread, net);
    parking_ends = true;
    pthread_mutex_unlock(&lock);
    pst_net_stop(net, 20000);
    expect_frame(fd, "?late", 5);
    expect_closed(fd);
    expect_closed(idle);
    pthread_join(answerer, NULL);
    pst_net_destroy(net);
}

static void test_stop_does_not_wait_longer_than_its_grace(void) {
    parking_ends = false;
    pst_net_handler handler = {.on_frame = park_frame};
    pst_net *net = test_net(handler, test_limits(), 1, NULL);
    int fd = test_connect(net);
    send_frame(fd, "?never", 6);
    WAIT_UNTIL(parked_now() == 1);
    int64_t before = pst_monotonic_ms();
    pst_net_stop(net, 50);
    CHECK(pst_monotonic_ms() - before < 5000);
    expect_closed(fd);
    free(parked[--parked_count]);
    pst_net_destroy(net); /* frees the exchange nobody finished */
}

static void test_create_and_destroy_without_start(void) {
    pst_net_listener listener = {.host = "::1", .port = 0};
    pst_net_settings settings = {.reactor_count = 2,
                                 .listeners = &listener,
                                 .listener_count = 1,
                                 .limits = test_limits(),
                                 .handler = {.on_frame = echo_frame}};
    char error[200];
    pst_net *net;
    if (pst_net_create(&settings, error, sizeof error, &net) == 0) {
        pst_net_destroy(net);
    }
    listener.host = "127.0.0.1";
    CHECK_EQ(pst_net_create(&settings, error, sizeof error, &net), 0);
    listener.port = pst_net_port(net, 0);
    pst_net *second;
    CHECK_EQ(pst_net_create(&settings, error, sizeof error, &second), -PST_EADDRINUSE);
    CHECK(second == NULL && strstr(error, "in use") != NULL);
    pst_net_destroy(net);
}

int main(void) {
    test_order_with_answers_from_threads();
    test_dead_connection_keeps_open_exchanges();
    test_barrier_holds_later_frames();
    test_kinds_of_finish();
    test_stop_answers_what_is_open();
    test_stop_does_not_wait_longer_than_its_grace();
    test_create_and_destroy_without_start();
    return 0;
}
