/* engine/counters.c - the numbers of every room under one set of names.
 *
 * Owner: any thread may ask. Layer: engine. */
#include "engine/engine_private.h"

int pst_engine_get_statistics(pst_engine *engine, pst_engine_counter *counters_out, int capacity) {
    if (pst_engine__enter(engine) < 0) {
        return 0;
    }
    pst_net_statistics net = {0};
    pst_broker_statistics broker = {0};
    pst_storage_statistics storage = {0};
    pst_iopool_statistics iopool = {0};
    if (engine->net != NULL) {
        pst_net_get_statistics(engine->net, &net);
    }
    pst_broker_get_statistics(engine->broker, &broker);
    pst_storage_get_statistics(engine->storage, &storage);
    pst_iopool_get_statistics(engine->iopool, &iopool);
    pst_engine__leave(engine);
    const pst_engine_counter all[] = {
        {"connections", net.connections},
        {"connections_accepted", net.accepted},
        {"connections_refused", net.refused},
        {"connections_closed_slow", net.closed_slow},
        {"frames", net.frames},
        {"frame_pool_bytes", net.frame_pool_used},
        {"bytes_in", net.bytes_in},
        {"bytes_out", net.bytes_out},
        {"rounds", net.rounds},
        {"cold_ranges", net.cold_ranges},
        {"requests", broker.requests},
        {"produce_requests", broker.produce_requests},
        {"produce_batches", broker.produce_batches},
        {"produce_bytes", broker.produce_bytes},
        {"fetch_requests", broker.fetch_requests},
        {"fetch_bytes", broker.fetch_bytes},
        {"fetches_parked", broker.fetches_parked},
        {"fetch_sessions", broker.fetch_sessions},
        {"offloaded_appends", broker.offloaded_appends},
        {"open_files", storage.open_files},
        {"tail_bytes", storage.tail_bytes},
        {"producer_ids", storage.producer_ids},
        {"logs", storage.logs},
        {"rolls", storage.rolls},
        {"cold_reads", storage.cold_reads},
        {"io_jobs_queued", iopool.queued},
        {"io_jobs_running", iopool.running},
    };
    int count = (int)(sizeof all / sizeof all[0]);
    for (int i = 0; i < count && i < capacity; i++) {
        counters_out[i] = all[i];
    }
    return count;
}
