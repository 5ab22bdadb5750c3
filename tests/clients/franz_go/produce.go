package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Writing: codecs and acks, idempotence, topics that appear by being written to, odd and large records.

const roundTripCount = 300

func produceChecks() []check {
	var all []check
	codecs := []struct {
		name  string
		codec kgo.CompressionCodec
	}{
		{"none", kgo.NoCompression()}, {"gzip", kgo.GzipCompression()}, {"snappy", kgo.SnappyCompression()},
		{"lz4", kgo.Lz4Compression()}, {"zstd", kgo.ZstdCompression()},
	}
	for _, c := range codecs {
		for _, acks := range []string{"0", "1", "all"} {
			name := "produce/" + c.name + "/acks=" + acks
			all = append(all, check{name, func(k *kit) error { return roundTrip(k, c.codec, acks) }})
		}
	}
	return append(all, check{"idempotent", idempotent}, check{"transactional_id", transactionalID},
		check{"auto_create", autoCreate}, check{"odd_records", oddRecords}, check{"too_large", tooLarge})
}

func value(i int) string {
	return fmt.Sprintf("value-%d-%s", i, strings.Repeat("abcdefgh", i%50))
}

func roundTrip(k *kit, codec kgo.CompressionCodec, acks string) error {
	ctx := context.Background()
	topic, err := k.topic(ctx, "codec", 3, nil)
	if err != nil {
		return err
	}
	opts := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner())}
	switch acks {
	case "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	case "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	}
	cl, err := k.client(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var records []*kgo.Record
	for i := range roundTripCount {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 3), Key: []byte("k" + strconv.Itoa(i)), Value: []byte(value(i))})
	}
	for i, sent := range cl.ProduceSync(ctx, records...) {
		if sent.Err != nil {
			return sent.Err
		}
		if acks != "0" && sent.Record.Offset != offsetOf(sent.Record.Key) {
			return fmt.Errorf("record %d has offset %d", i, sent.Record.Offset)
		}
	}
	got, err := k.readAll(topic, roundTripCount)
	if err != nil {
		return err
	}
	for _, r := range got {
		i := int(r.Offset)*3 + int(r.Partition)
		if string(r.Key) != "k"+strconv.Itoa(i) || string(r.Value) != value(i) {
			return fmt.Errorf("at %d@%d: key %s, value %s", r.Partition, r.Offset, r.Key, r.Value)
		}
	}
	return nil
}

// offsetOf is where the record with this key must lie in its partition.
func offsetOf(key []byte) int64 {
	i, _ := strconv.Atoi(string(key[1:]))
	return int64(i / 3)
}

func idempotent(k *kit) error {
	ctx := context.Background()
	topic, err := k.topic(ctx, "idempotent", 2, nil)
	if err != nil {
		return err
	}
	const many = 5000
	cl, err := k.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(1000), kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	var records []*kgo.Record
	for i := range many {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: []byte(strconv.Itoa(i))})
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return err
	}
	got, err := k.readAll(topic, many)
	if err != nil {
		return err
	}
	for _, r := range got {
		if err := same(strconv.Itoa(int(r.Offset)*2+int(r.Partition)), string(r.Value), "value"); err != nil {
			return err
		}
	}
	return nil
}

// transactionalID: a broker without transactions must say so at once; one with them must carry a commit out.
func transactionalID(k *kit) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	topic, err := k.topic(ctx, "transactional", 1, nil)
	if err != nil {
		return err
	}
	cl, err := k.client(kgo.TransactionalID(k.unique("tx")))
	if err != nil {
		return err
	}
	defer cl.Close()
	began := time.Now()
	err = cl.BeginTransaction()
	if err == nil {
		err = cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr()
	}
	// The client wraps the error of InitProducerId in words only.
	if err != nil && strings.Contains(err.Error(), kerr.TransactionalIDAuthorizationFailed.Message) {
		if time.Since(began) > 10*time.Second {
			return fmt.Errorf("refused, but only after %v", time.Since(began))
		}
		return nil
	}
	if err := first(err, cl.EndTransaction(ctx, kgo.TryCommit)); err != nil {
		return err
	}
	_, err = k.readAll(topic, 1)
	return err
}

func autoCreate(k *kit) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	topic := k.unique("appears")
	cl, err := k.client(kgo.AllowAutoTopicCreation())
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr(); err != nil {
		return err
	}
	adm, err := k.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	details, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return err
	}
	if err := same(4, len(details[topic].Partitions), "partitions (num.partitions)"); err != nil {
		return err
	}
	_, err = k.readAll(topic, 1)
	return err
}

func oddRecords(k *kit) error {
	ctx := context.Background()
	topic, err := k.topic(ctx, "odd", 1, nil)
	if err != nil {
		return err
	}
	cl, err := k.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	large := bytes.Repeat([]byte("x"), 900_000)
	stamp := time.UnixMilli(time.Now().UnixMilli() - 12_345)
	headers := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "b", Value: []byte{}}}
	for i, r := range []*kgo.Record{
		{Topic: topic},
		{Topic: topic, Key: []byte{}, Value: []byte{}},
		{Topic: topic, Key: []byte("schlüssel"), Value: []byte("wert"), Timestamp: stamp, Headers: headers},
		{Topic: topic, Key: []byte("large"), Value: large},
	} {
		sent, err := cl.ProduceSync(ctx, r).First()
		if err := first(err, same(int64(i), sent.Offset, "offset")); err != nil {
			return err
		}
	}
	got, err := k.readAll(topic, 4)
	if err != nil {
		return err
	}
	switch {
	case got[0].Key != nil || got[0].Value != nil:
		return errors.New("nulls did not come back as nulls")
	case got[1].Key == nil || got[1].Value == nil:
		return errors.New("empty came back as null")
	case string(got[2].Key) != "schlüssel" || !got[2].Timestamp.Equal(stamp) || len(got[2].Headers) != 3:
		return fmt.Errorf("the third record came back as %v", got[2])
	case got[2].Headers[1].Value != nil:
		return errors.New("a null header value did not come back")
	case !bytes.Equal(got[3].Value, large):
		return errors.New("the large value differs")
	}
	return nil
}

func tooLarge(k *kit) error {
	ctx := context.Background()
	limit := "10000"
	topic, err := k.topic(ctx, "limit", 1, map[string]*string{"max.message.bytes": &limit})
	if err != nil {
		return err
	}
	cl, err := k.client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer cl.Close()
	err = cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: make([]byte, 20_000)}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		return fmt.Errorf("a record above max.message.bytes: %v", err)
	}
	sent, err := cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("small")}).First()
	return first(err, same(int64(0), sent.Offset, "offset after the refusal"))
}
