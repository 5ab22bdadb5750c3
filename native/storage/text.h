/* storage/text.h - a bounded cursor over the small text files of a log directory.
 * Owner: the function that parses. Pure functions on bytes. */
#ifndef PST_STORAGE_TEXT_H
#define PST_STORAGE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

typedef struct {
    const uint8_t *cur;
    const uint8_t *end;
} pst_storage__text;

/* A decimal number (a leading '-' is allowed) ended by `stop`; a newline may also be the end of the
 * text or follow a carriage return. False when there is none or it does not fit. */
static inline bool pst_storage__text_number(pst_storage__text *text, char stop,
                                            int64_t *value_out) {
    const uint8_t *p = text->cur;
    bool negative = p < text->end && *p == '-';
    int64_t value = 0;
    int digits = 0;
    *value_out = 0;
    p += negative ? 1 : 0;
    for (; p < text->end && *p >= '0' && *p <= '9'; p++, digits++) {
        int digit = *p - '0';
        if (value > (INT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    if (digits == 0) {
        return false;
    }
    if (stop == '\n' && p < text->end && *p == '\r') {
        p++;
    }
    if (p < text->end) {
        if (*p != (uint8_t)stop) {
            return false;
        }
        p++;
    } else if (stop != '\n') {
        return false;
    }
    text->cur = p;
    *value_out = negative ? -value : value;
    return true;
}

/* The bytes up to `stop`, which is consumed. False when there is none. */
static inline bool pst_storage__text_word(pst_storage__text *text, char stop, pst_slice *word_out) {
    const uint8_t *p = text->cur;
    *word_out = pst_slice_of(text->cur, 0);
    while (p < text->end && *p != (uint8_t)stop && *p != '\n') {
        p++;
    }
    if (p == text->end || *p != (uint8_t)stop) {
        return false;
    }
    *word_out = pst_slice_of(text->cur, (size_t)(p - text->cur));
    text->cur = p + 1;
    return true;
}

#endif
