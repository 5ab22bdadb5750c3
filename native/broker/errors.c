/* broker/errors.c - the one place where the core's errors become Kafka's.
 *
 * Owner: nobody; pure. Layer: broker. Deliberately has no `default`: a new PST_E* without a row
 * does not build. */
#include "broker/broker_private.h"
#include "wire/error_codes.h"

#pragma GCC diagnostic error "-Wswitch-enum"

int16_t pst_broker__kafka_error(int rc) {
    int index = rc < 0 ? -rc : rc;
    switch ((enum pst_err)index) {
        case PST_OK:
        case PST_EDUPLICATE:
            return PST_KAFKA_NONE;
        case PST_EIO:
        case PST_ENOSPC:
        case PST_EMFILE:
        case PST_EOFFLINE:
        case PST_ELOCKED:
            return PST_KAFKA_KAFKA_STORAGE_ERROR;
        case PST_ENOENT:
        case PST_ECLOSED:
            return PST_KAFKA_UNKNOWN_TOPIC_OR_PARTITION;
        case PST_EEXIST:
            return PST_KAFKA_TOPIC_ALREADY_EXISTS;
        case PST_EINVAL:
            return PST_KAFKA_INVALID_REQUEST;
        case PST_EAGAIN:
            return PST_KAFKA_REQUEST_TIMED_OUT;
        case PST_ETRUNC:
        case PST_EMALFORMED:
        case PST_ECRC:
        case PST_ECORRUPT:
            return PST_KAFKA_CORRUPT_MESSAGE;
        case PST_EVERSION:
            return PST_KAFKA_UNSUPPORTED_VERSION;
        case PST_EMAGIC:
        case PST_ERECORD:
            return PST_KAFKA_INVALID_RECORD;
        case PST_ETOOLARGE:
        case PST_EBOMB:
            return PST_KAFKA_MESSAGE_TOO_LARGE;
        case PST_ETIMESTAMP:
            return PST_KAFKA_INVALID_TIMESTAMP;
        case PST_ECODEC:
            return PST_KAFKA_UNSUPPORTED_COMPRESSION_TYPE;
        case PST_EOFFSET:
            return PST_KAFKA_OFFSET_OUT_OF_RANGE;
        case PST_ESEQUENCE:
            return PST_KAFKA_OUT_OF_ORDER_SEQUENCE_NUMBER;
        case PST_EPRODUCEREPOCH:
            return PST_KAFKA_INVALID_PRODUCER_EPOCH;
        case PST_ETXN:
            return PST_KAFKA_INVALID_TXN_STATE;
        case PST_ELEADEREPOCH:
            return PST_KAFKA_FENCED_LEADER_EPOCH;
        case PST_ENOTREADY:
            return PST_KAFKA_LEADER_NOT_AVAILABLE;
        case PST_ENOMEM:
        case PST_ELIMIT:
        case PST_EADDRINUSE:
        case PST_ESYS:
        case PST_ERR_COUNT:
            return PST_KAFKA_UNKNOWN_SERVER_ERROR;
    }
    return PST_KAFKA_UNKNOWN_SERVER_ERROR;
}

int16_t pst_broker_kafka_error(int rc) {
    return pst_broker__kafka_error(rc);
}
