package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Administration: the cluster, topics, configurations, deletion of records, groups.

func adminChecks() []check {
	wrap := func(run func(context.Context, *kit, *kadm.Client) error) func(*kit) error {
		return func(k *kit) error {
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			adm, err := k.admin()
			if err != nil {
				return err
			}
			defer adm.Close()
			return run(ctx, k, adm)
		}
	}
	return []check{
		{"admin_cluster", wrap(adminCluster)},
		{"admin_topics", wrap(adminTopics)},
		{"admin_configs", wrap(adminConfigs)},
		{"admin_delete_records", wrap(adminDeleteRecords)},
		{"admin_groups", wrap(adminGroups)},
	}
}

func adminCluster(ctx context.Context, k *kit, adm *kadm.Client) error {
	metadata, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	if metadata.Cluster == "" || len(metadata.Brokers) != 1 || metadata.Brokers[0].NodeID != 0 {
		return fmt.Errorf("metadata: %+v", metadata)
	}
	topic, err := k.topic(ctx, "dirs", 2, nil)
	if err := first(err, produce(k, topic, 2, 10)); err != nil {
		return err
	}
	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return err
	}
	size := int64(0)
	for _, d := range dirs[0] {
		for _, p := range d.Topics[topic] {
			size += p.Size
		}
	}
	if size == 0 {
		return errors.New("DescribeLogDirs does not show the topic's bytes")
	}
	_, err = adm.ApiVersions(ctx)
	return err
}

func refused(expected *kerr.Error, err error, what string) error {
	if !errors.Is(err, expected) {
		return fmt.Errorf("%s: expected %s, found %v", what, expected.Message, err)
	}
	return nil
}

func adminTopics(ctx context.Context, k *kit, adm *kadm.Client) error {
	name := k.unique("admin")
	if _, err := adm.ValidateCreateTopics(ctx, 2, 1, nil, name); err != nil {
		return err
	}
	listed, err := adm.ListTopics(ctx)
	if err != nil {
		return err
	}
	if listed.Has(name) {
		return errors.New("validating created the topic")
	}
	created, err := adm.CreateTopic(ctx, 2, 1, nil, name)
	if err != nil {
		return err
	}
	_, again := adm.CreateTopic(ctx, 2, 1, nil, name)
	_, bad := adm.CreateTopic(ctx, 2, 1, nil, "a b")
	_, replicas := adm.CreateTopic(ctx, 2, 2, nil, name+"x")
	if err := first(same(int32(2), created.NumPartitions, "partitions in the answer"), refused(kerr.TopicAlreadyExists, again, "again"),
		refused(kerr.InvalidTopicException, bad, "a bad name"),
		refused(kerr.InvalidReplicationFactor, replicas, "two replicas of one broker")); err != nil {
		return err
	}
	grown, err := adm.UpdatePartitions(ctx, 5, name)
	if err := first(err, grown.Error()); err != nil {
		return err
	}
	fewer, err := adm.UpdatePartitions(ctx, 3, name)
	if err := first(err, refused(kerr.InvalidPartitions, fewer.Error(), "fewer partitions")); err != nil {
		return err
	}
	listed, err = adm.ListTopics(ctx, name)
	if err != nil {
		return err
	}
	detail := listed[name]
	if len(detail.Partitions) != 5 || detail.ID != created.ID || detail.Partitions[4].Leader != 0 || len(detail.Partitions[4].ISR) != 1 {
		return fmt.Errorf("metadata: %+v", detail)
	}
	if _, err := adm.DeleteTopic(ctx, name); err != nil {
		return err
	}
	_, gone := adm.DeleteTopic(ctx, name)
	return refused(kerr.UnknownTopicOrPartition, gone, "deleting what is gone")
}

func adminConfigs(ctx context.Context, k *kit, adm *kadm.Client) error {
	given := "123456789"
	topic, err := k.topic(ctx, "config", 1, map[string]*string{"retention.ms": &given})
	if err != nil {
		return err
	}
	once := func(key, value string, dynamic bool, what string) error {
		found, err := adm.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return err
		}
		resource, err := found.On(topic, nil)
		if err != nil {
			return err
		}
		for _, c := range resource.Configs {
			if c.Key == key {
				return first(same(value, c.MaybeValue(), what), same(dynamic, c.Source == kmsg.ConfigSourceDynamicTopicConfig, what+", source"))
			}
		}
		return fmt.Errorf("%s: no key %s", what, key)
	}
	// A broker may answer before its own view of the configuration is the new one.
	expect := func(key, value string, dynamic bool, what string) (err error) {
		for range 100 {
			if err = once(key, value, dynamic, what); err == nil {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return err
	}
	alter := func(op kadm.IncrementalOp, key, value string) error {
		done, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: op, Name: key, Value: &value}}, topic)
		if err != nil {
			return err
		}
		return done[0].Err
	}
	state := "777777"
	replace := func() error {
		done, err := adm.AlterTopicConfigsState(ctx, []kadm.AlterConfig{{Name: "retention.ms", Value: &state}}, topic)
		if err != nil {
			return err
		}
		return done[0].Err
	}
	for _, step := range []func() error{
		func() error { return expect("retention.ms", given, true, "given at creation") },
		func() error { return alter(kadm.SetConfig, "max.message.bytes", "54321") },
		func() error { return expect("max.message.bytes", "54321", true, "after SET") },
		func() error { return alter(kadm.DeleteConfig, "retention.ms", "") },
		func() error { return expect("retention.ms", "604800000", false, "after DELETE") },
		func() error { return alter(kadm.AppendConfig, "cleanup.policy", "compact") },
		func() error { return alter(kadm.SubtractConfig, "cleanup.policy", "delete") },
		func() error { return expect("cleanup.policy", "compact", true, "after APPEND and SUBTRACT") },
		func() error {
			return refused(kerr.InvalidConfig, alter(kadm.SetConfig, "retention.ms", "soon"), "a bad value")
		},
		replace,
		func() error { return expect("retention.ms", state, true, "after AlterConfigs") },
		func() error {
			return expect("max.message.bytes", "1048588", false, "AlterConfigs replaces all")
		},
	} {
		if err := step(); err != nil {
			return err
		}
	}
	found, err := adm.DescribeBrokerConfigs(ctx, 0)
	if err != nil {
		return err
	}
	for _, c := range found[0].Configs {
		if c.Key == "num.partitions" {
			return same("4", c.MaybeValue(), "num.partitions of the broker")
		}
	}
	return errors.New("the broker does not describe num.partitions")
}

func adminDeleteRecords(ctx context.Context, k *kit, adm *kadm.Client) error {
	topic, err := k.topic(ctx, "cut", 1, nil)
	if err := first(err, produce(k, topic, 1, 100)); err != nil {
		return err
	}
	cut := func(at int64) (kadm.DeleteRecordsResponse, error) {
		offsets := kadm.Offsets{}
		offsets.AddOffset(topic, 0, at, -1)
		done, err := adm.DeleteRecords(ctx, offsets)
		return done[topic][0], first(err, done[topic][0].Err)
	}
	done, err := cut(40)
	if err := first(err, same(int64(40), done.LowWatermark, "low watermark")); err != nil {
		return err
	}
	_, beyond := cut(500)
	start, err := adm.ListStartOffsets(ctx, topic)
	if err := first(refused(kerr.OffsetOutOfRange, beyond, "beyond the end"), err, same(int64(40), start[topic][0].Offset, "start")); err != nil {
		return err
	}
	got, err := k.readAll(topic, 60)
	return first(err, func() error {
		if len(got) == 0 {
			return nil
		}
		return same(int64(40), got[0].Offset, "first offset")
	}())
}

func adminGroups(ctx context.Context, k *kit, adm *kadm.Client) error {
	topic, err := k.topic(ctx, "groups", 2, nil)
	if err := first(err, produce(k, topic, 2, 20)); err != nil {
		return err
	}
	group := k.unique("group")
	cl, err := k.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic))
	if err != nil {
		return err
	}
	defer cl.Close()
	for count := 0; count < 20; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return err
		}
		count += len(fetches.Records())
	}
	if err := cl.CommitUncommittedOffsets(ctx); err != nil {
		return err
	}
	listed, err := adm.ListGroups(ctx)
	if err != nil {
		return err
	}
	described, err := adm.DescribeGroups(ctx, group)
	if err != nil {
		return err
	}
	_, busy := adm.DeleteGroup(ctx, group)
	d := described[group]
	if _, ok := listed[group]; !ok || d.State != "Stable" || len(d.Members) != 1 {
		return fmt.Errorf("listed %v, described as %+v", ok, d)
	}
	assigned, ok := d.Members[0].Assigned.AsConsumer()
	if !ok || len(assigned.Topics) != 1 || len(assigned.Topics[0].Partitions) != 2 {
		return fmt.Errorf("assignment: %+v", assigned)
	}
	if err := refused(kerr.NonEmptyGroup, busy, "deleting a group in use"); err != nil {
		return err
	}
	cl.Close()
	described, err = adm.DescribeGroups(ctx, group)
	if err := first(err, same("Empty", described[group].State, "state when all left")); err != nil {
		return err
	}
	committed := func(expected int64, what string) error {
		offsets, err := adm.FetchOffsets(ctx, group)
		return first(err, same(expected, offsets[topic][0].At, what))
	}
	change := kadm.Offsets{}
	change.AddOffset(topic, 0, 3, -1)
	if err := first(committed(10, "committed"), adm.CommitAllOffsets(ctx, group, change), committed(3, "after a commit from outside")); err != nil {
		return err
	}
	set := kadm.TopicsSet{}
	set.Add(topic, 0)
	if _, err := adm.DeleteOffsets(ctx, group, set); err != nil {
		return err
	}
	offsets, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	if _, ok := offsets.Lookup(topic, 0); ok {
		return errors.New("the offset is still there")
	}
	if _, err := adm.DeleteGroup(ctx, group); err != nil {
		return err
	}
	listed, err = adm.ListGroups(ctx)
	if err != nil {
		return err
	}
	if _, ok := listed[group]; ok {
		return errors.New("the group is still listed")
	}
	return nil
}
