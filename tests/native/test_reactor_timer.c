/* The wheel against a model: every timer fires once, in the first advance at or after its deadline.
 */
#include "check.h"
#include "reactor/reactor_private.h"

enum { TIMERS = 400, STEPS = 3000 };

static pst_timer timers[TIMERS];
static bool armed[TIMERS];
static int64_t fired_at[TIMERS];

static void fire(pst_timer *timer, pst_reactor *reactor) {
    long i = timer - timers;
    CHECK(armed[i]);
    armed[i] = false;
    CHECK(timer->deadline_ms <= reactor->now_ms);
    fired_at[i] = reactor->now_ms;
}

static uint64_t random_state = 42;

static uint64_t random_below(uint64_t limit) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % limit;
}

int main(void) {
    pst_reactor *reactor = calloc(1, sizeof *reactor);
    pst_reactor__set_current(reactor);
    reactor->now_ms = 987654321;
    pst_reactor__wheel_init(&reactor->wheel, reactor->now_ms);
    CHECK_EQ(pst_reactor__wheel_next_ms(&reactor->wheel), -1);
    for (int i = 0; i < TIMERS; i++) {
        pst_timer_init(&timers[i], fire);
    }
    static const uint64_t spans[] = {3, 64, 1000, 70000, 5000000, 1000000000};
    for (int step = 0; step < STEPS; step++) {
        for (int n = 0; n < 5; n++) {
            uint64_t i = random_below(TIMERS);
            if (random_below(4) == 0) {
                pst_timer_cancel(reactor, &timers[i]);
                armed[i] = false;
            } else {
                int64_t in = (int64_t)random_below(spans[random_below(6)]);
                pst_timer_arm(reactor, &timers[i], reactor->now_ms + in);
                armed[i] = true;
            }
        }
        int64_t first = INT64_MAX;
        for (int i = 0; i < TIMERS; i++) {
            if (armed[i] && timers[i].deadline_ms < first) {
                first = timers[i].deadline_ms;
            }
        }
        int64_t next = pst_reactor__wheel_next_ms(&reactor->wheel);
        CHECK(first == INT64_MAX || (next >= 0 && next <= first)); /* never sleeps too long */
        reactor->now_ms += (int64_t)random_below(spans[random_below(5)]);
        pst_reactor__wheel_fire(reactor);
        for (int i = 0; i < TIMERS; i++) {
            CHECK(!armed[i] || timers[i].deadline_ms > reactor->now_ms);
        }
    }
    /* Sleeping from one next_ms to the other reaches a far deadline in few steps. */
    for (int i = 0; i < TIMERS; i++) {
        pst_timer_cancel(reactor, &timers[i]);
        armed[i] = false;
    }
    CHECK_EQ(pst_reactor__wheel_next_ms(&reactor->wheel), -1);
    int64_t deadline = reactor->now_ms + 600000;
    pst_timer_arm(reactor, &timers[0], deadline);
    armed[0] = true;
    int wakes = 0;
    while (armed[0]) {
        reactor->now_ms = pst_reactor__wheel_next_ms(&reactor->wheel);
        pst_reactor__wheel_fire(reactor);
        wakes++;
    }
    CHECK_EQ(fired_at[0], deadline);
    CHECK(wakes <= PST_WHEEL_LEVELS);
    pst_timer_arm(reactor, &timers[1], INT64_MAX); /* "never" is allowed */
    CHECK(pst_reactor__wheel_next_ms(&reactor->wheel) > deadline);
    free(reactor);
    return 0;
}
