/* broker/fetch_session_map.h - the partitions of one fetch session: a hash map that keeps an order
 * of service. Owner: as the session. Layer: broker, fetch files only. */
#ifndef PST_BROKER_FETCH_SESSION_MAP_H
#define PST_BROKER_FETCH_SESSION_MAP_H

#include "broker/fetch_private.h"

pst_fetch_session *pst_fetch_map__create(bool uses_topic_ids, uint64_t seed);
void pst_fetch_map__destroy(pst_fetch_session *session);
/* Adds `part` of `op` at the end, or changes what is asked of it. *at_out indexes session->parts.
 * Returns 0, -PST_ENOMEM or -PST_ELIMIT. */
int pst_fetch_map__put(pst_fetch_session *session, const pst_fetch_op *op,
                       const pst_fetch_part *part, int32_t *at_out);
void pst_fetch_map__forget(pst_fetch_session *session, const pst_fetch_op *op, int32_t topic,
                           int32_t index);
void pst_fetch_map__move_to_end(pst_fetch_session *session, int32_t at);
/* Replaces the topics and partitions of `op` by the session's, in their order. Resolves names of
 * topic ids that were unknown so far. Returns 0, -PST_ENOMEM or -PST_ELIMIT. */
int pst_fetch_map__load(pst_fetch_session *session, pst_fetch_op *op, const pst_image *image);

#endif
