/* reactor/timer.c - a hierarchical timer wheel of seven levels with 64 slots each.
 *
 * Owner: the reactor's thread. Layer: reactor. It has no tick: the loop sleeps until
 * pst_reactor__wheel_next_ms.
 *
 * A timer sits on the level of the highest 6-bit digit in which its deadline differs from now. So
 * all timers of one level lie ahead of the current digit, lower levels are earlier than higher
 * ones, and nothing ever wraps. */
#include <string.h>

#include "reactor/reactor_private.h"

#define WHEEL_LAST ((INT64_C(1) << (6 * PST_WHEEL_LEVELS)) - 1)

void pst_reactor__wheel_init(pst_reactor__wheel *wheel, int64_t now_ms) {
    memset(wheel, 0, sizeof *wheel);
    wheel->now_ms = now_ms;
    for (int level = 0; level < PST_WHEEL_LEVELS; level++) {
        for (int slot = 0; slot < PST_WHEEL_SLOTS; slot++) {
            pst_list_init(&wheel->slots[level][slot]);
        }
    }
    pst_list_init(&wheel->due);
}

static void insert(pst_reactor__wheel *wheel, pst_timer *timer) {
    if (timer->deadline_ms <= wheel->now_ms) {
        pst_list_push_back(&wheel->due, &timer->link);
        return;
    }
    int64_t at = timer->deadline_ms > WHEEL_LAST ? WHEEL_LAST : timer->deadline_ms;
    uint64_t differ = (uint64_t)(at ^ wheel->now_ms);
    int level = differ == 0 ? 0 : (63 - __builtin_clzll(differ)) / 6;
    int slot = (int)((uint64_t)at >> (6 * level)) & (PST_WHEEL_SLOTS - 1);
    pst_list_push_back(&wheel->slots[level][slot], &timer->link);
    wheel->occupied[level] |= UINT64_C(1) << slot;
}

/* The first slot that holds a timer; its start, or -1. */
static int64_t first_slot(pst_reactor__wheel *wheel, int *level_out, int *slot_out) {
    for (int level = 0; level < PST_WHEEL_LEVELS; level++) {
        while (wheel->occupied[level] != 0) {
            int slot = __builtin_ctzll(wheel->occupied[level]);
            if (pst_list_empty(&wheel->slots[level][slot])) {
                wheel->occupied[level] &= wheel->occupied[level] - 1;
                continue;
            }
            int shift = 6 * level;
            uint64_t above = (uint64_t)wheel->now_ms >> (shift + 6) << (shift + 6);
            *level_out = level;
            *slot_out = slot;
            return (int64_t)(above | (uint64_t)slot << shift);
        }
    }
    return -1;
}

void pst_reactor__wheel_advance(pst_reactor__wheel *wheel, int64_t now_ms) {
    int level = 0;
    int slot = 0;
    for (;;) {
        int64_t at = first_slot(wheel, &level, &slot);
        if (at < 0 || at > now_ms) {
            break;
        }
        wheel->now_ms = at > wheel->now_ms ? at : wheel->now_ms;
        wheel->occupied[level] &= ~(UINT64_C(1) << slot);
        pst_list *link;
        while ((link = pst_list_pop_front(&wheel->slots[level][slot])) != NULL) {
            insert(wheel, PST_CONTAINER_OF(link, pst_timer, link));
        }
    }
    if (now_ms > wheel->now_ms) {
        wheel->now_ms = now_ms;
    }
}

int64_t pst_reactor__wheel_next_ms(pst_reactor__wheel *wheel) {
    int level = 0;
    int slot = 0;
    return pst_list_empty(&wheel->due) ? first_slot(wheel, &level, &slot) : wheel->now_ms;
}

void pst_reactor__wheel_fire(pst_reactor *reactor) {
    pst_reactor__wheel *wheel = &reactor->wheel;
    pst_reactor__wheel_advance(wheel, reactor->now_ms);
    if (pst_list_empty(&wheel->due)) {
        return;
    }
    /* A timer that re-arms itself for the past fires in the next round, not for ever in this one.
     */
    pst_list firing;
    pst_list_push_front(&wheel->due, &firing); /* `firing` takes over the ring ... */
    pst_list_remove(&wheel->due);              /* ... and `due` leaves it empty. */
    pst_list *link;
    while ((link = pst_list_pop_front(&firing)) != NULL) {
        pst_timer *timer = PST_CONTAINER_OF(link, pst_timer, link);
        timer->fire(timer, reactor);
    }
}

void pst_timer_init(pst_timer *timer, void (*fire)(pst_timer *timer, pst_reactor *reactor)) {
    pst_list_init(&timer->link);
    timer->deadline_ms = 0;
    timer->fire = fire;
}

void pst_timer_arm(pst_reactor *reactor, pst_timer *timer, int64_t deadline_ms) {
    PST_ASSERT_ON(reactor);
    pst_list_remove(&timer->link);
    timer->deadline_ms = deadline_ms;
    insert(&reactor->wheel, timer);
}

void pst_timer_cancel(pst_reactor *reactor, pst_timer *timer) {
    PST_ASSERT_ON(reactor);
    (void)reactor;
    pst_list_remove(&timer->link);
}
