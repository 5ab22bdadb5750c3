/* base/clock.h - the two clocks. Monotonic for every timeout, wall for record timestamps and
 * retention (DESIGN law 10). Owner: nobody. */
#ifndef PST_BASE_CLOCK_H
#define PST_BASE_CLOCK_H

#include <stdint.h>

int64_t pst_monotonic_ns(void);
int64_t pst_monotonic_ms(void);
int64_t pst_wall_ms(void);

#endif
