/* bench/histogram.h - latency histogram: logarithmic buckets of 1/128 of their power of two (below
 * 0.8 % error). Owner: the one thread of the load generator. */
#ifndef PST_BENCH_HISTOGRAM_H
#define PST_BENCH_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_SUB = 128, HISTOGRAM_BUCKETS = 40 * HISTOGRAM_SUB };

typedef struct {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    int64_t max;
} histogram;

static inline int histogram_index(int64_t value) {
    if (value < HISTOGRAM_SUB) {
        return value < 0 ? 0 : (int)value;
    }
    int shift = 63 - __builtin_clzll((uint64_t)value) - 7;
    int index = (shift + 1) * HISTOGRAM_SUB + (int)((value >> shift) - HISTOGRAM_SUB);
    return index < HISTOGRAM_BUCKETS ? index : HISTOGRAM_BUCKETS - 1;
}

/* The largest value that falls into the bucket. */
static inline int64_t histogram_value(int index) {
    if (index < HISTOGRAM_SUB) {
        return index;
    }
    int shift = index / HISTOGRAM_SUB - 1;
    return (((int64_t)HISTOGRAM_SUB + index % HISTOGRAM_SUB + 1) << shift) - 1;
}

static inline void histogram_add(histogram *h, int64_t value) {
    h->counts[histogram_index(value)]++;
    h->total++;
    if (value > h->max) {
        h->max = value;
    }
}

static inline int64_t histogram_quantile(const histogram *h, double quantile) {
    uint64_t wanted = (uint64_t)(quantile * (double)h->total);
    uint64_t seen = 0;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->counts[i];
        if (seen > wanted) {
            return histogram_value(i);
        }
    }
    return h->max;
}

#endif
