package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Reading: groups whose members come and go, committed positions, positions by time.

func consumeChecks() []check {
	return []check{
		{"group_rebalance", groupRebalance},
		{"group_resume", groupResume},
		{"group_static", groupStatic},
		{"group_pattern", groupPattern},
		{"seek_by_time", seekByTime},
		{"long_poll", longPoll},
	}
}

// seen counts records by place; members share it.
type seen struct {
	mu     sync.Mutex
	counts map[string]int
}

func (s *seen) add(r *kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[fmt.Sprintf("%d@%d", r.Partition, r.Offset)]++
}

func (s *seen) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.counts)
}

func (s *seen) doubled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	doubled := 0
	for _, n := range s.counts {
		if n > 1 {
			doubled++
		}
	}
	return doubled
}

// member is a group member on a goroutine of its own, in default settings.
type member struct {
	cl    *kgo.Client
	done  chan struct{}
	mu    sync.Mutex
	owned map[int32]bool
}

func join(k *kit, group, topic string, s *seen, opts ...kgo.Opt) (*member, error) {
	m := &member{done: make(chan struct{}), owned: map[int32]bool{}}
	change := func(owned bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range partitions[topic] {
				if owned {
					m.owned[p] = true
				} else {
					delete(m.owned, p)
				}
			}
		}
	}
	lost := change(false)
	// What was taken away must have been committed first, or the next owner reads it again.
	revoked := func(ctx context.Context, cl *kgo.Client, partitions map[string][]int32) {
		_ = cl.CommitUncommittedOffsets(ctx)
		lost(ctx, cl, partitions)
	}
	var err error
	m.cl, err = k.client(append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.OnPartitionsAssigned(change(true)),
		kgo.OnPartitionsRevoked(revoked), kgo.OnPartitionsLost(lost), kgo.BlockRebalanceOnPoll(),
	}, opts...)...)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(m.done)
		for {
			fetches := m.cl.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			for _, r := range fetches.Records() {
				s.add(r)
			}
			m.cl.AllowRebalance()
		}
	}()
	return m, nil
}

func (m *member) partitions() map[int32]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	owned := map[int32]bool{}
	for p := range m.owned {
		owned[p] = true
	}
	return owned
}

func (m *member) leave() {
	m.cl.CloseAllowingRebalance()
	<-m.done
}

// each: every member owns so many, and nobody owns what another does.
func each(members []*member, count int) bool {
	all := map[int32]bool{}
	for _, m := range members {
		owned := m.partitions()
		if len(owned) != count {
			return false
		}
		for p := range owned {
			all[p] = true
		}
	}
	return len(all) == count*len(members)
}

func produce(k *kit, topic string, partitions, count int) error {
	cl, err := k.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	var records []*kgo.Record
	for i := range count {
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: []byte("v" + strconv.Itoa(i))})
	}
	return cl.ProduceSync(context.Background(), records...).FirstErr()
}

func groupRebalance(k *kit) error {
	ctx := context.Background()
	topic, err := k.topic(ctx, "rebalance", 6, nil)
	if err != nil {
		return err
	}
	group, s := k.unique("group"), &seen{counts: map[string]int{}}
	var members []*member
	defer func() {
		for _, m := range members {
			m.leave()
		}
	}()
	for range 3 {
		m, err := join(k, group, topic, s)
		if err != nil {
			return err
		}
		members = append(members, m)
	}
	if err := until("two partitions for each of three", 60*time.Second, func() bool { return each(members, 2) }); err != nil {
		return err
	}
	if err := first(produce(k, topic, 6, 600), until("600 records", 30*time.Second, func() bool { return s.size() == 600 })); err != nil {
		return err
	}
	leaving := members[1]
	members = []*member{members[0], members[2]}
	leaving.leave()
	if err := until("three partitions for each of two", 60*time.Second, func() bool { return each(members, 3) }); err != nil {
		return err
	}
	if err := first(produce(k, topic, 6, 600), until("1200 records", 30*time.Second, func() bool { return s.size() == 1200 })); err != nil {
		return err
	}
	for _, m := range members {
		m.leave()
	}
	members = nil
	adm, err := k.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	committed, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return err
	}
	for p := range int32(6) {
		if err := same(int64(200), committed[topic][p].At, "committed"); err != nil {
			return err
		}
	}
	return same(0, s.doubled(), "records read twice")
}

func groupResume(k *kit) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	topic, err := k.topic(ctx, "resume", 1, nil)
	if err := first(err, produce(k, topic, 1, 100)); err != nil {
		return err
	}
	group := k.unique("group")
	read := func(count int, commit int64) ([]int64, error) {
		cl, err := k.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit())
		if err != nil {
			return nil, err
		}
		defer cl.Close()
		var offsets []int64
		for len(offsets) < count {
			fetches := cl.PollRecords(ctx, 10)
			if err := fetches.Err0(); err != nil {
				return nil, err
			}
			for _, r := range fetches.Records() {
				offsets = append(offsets, r.Offset)
			}
		}
		if commit > 0 {
			err = cl.CommitRecords(ctx, &kgo.Record{Topic: topic, Partition: 0, Offset: commit - 1, LeaderEpoch: -1})
		}
		return offsets, err
	}
	if _, err := read(40, 40); err != nil {
		return err
	}
	rest, err := read(60, 0)
	if err != nil {
		return err
	}
	return first(same(int64(40), rest[0], "the first record after the committed position"), same(60, len(rest), "records"))
}

// groupStatic: a static member that comes back keeps its partitions without a rebalance of the others.
func groupStatic(k *kit) error {
	topic, err := k.topic(context.Background(), "static", 4, nil)
	if err != nil {
		return err
	}
	group, s := k.unique("group"), &seen{counts: map[string]int{}}
	var members []*member
	defer func() {
		for _, m := range members {
			m.leave()
		}
	}()
	for _, id := range []string{"a", "b"} {
		m, err := join(k, group, topic, s, kgo.InstanceID(id))
		if err != nil {
			return err
		}
		members = append(members, m)
	}
	if err := until("two partitions for each of two", 60*time.Second, func() bool { return each(members, 2) }); err != nil {
		return err
	}
	before := members[1].partitions()
	members[1].leave()
	members[1], err = join(k, group, topic, s, kgo.InstanceID("b"))
	if err != nil {
		return err
	}
	if err := until("two partitions again", 30*time.Second, func() bool { return each(members, 2) }); err != nil {
		return err
	}
	for p := range members[1].partitions() {
		if !before[p] {
			return fmt.Errorf("partition %d came from the other member", p)
		}
	}
	return first(produce(k, topic, 4, 40), until("40 records", 30*time.Second, func() bool { return s.size() == 40 }))
}

func groupPattern(k *kit) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	stem := k.unique("pattern")
	adm, err := k.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	cl, err := k.client(kgo.ConsumerGroup(k.unique("group")), kgo.ConsumeRegex(), kgo.ConsumeTopics(stem+"-.*"),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(500*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	for i, partitions := range []int32{1, 2} {
		topic := stem + "-" + strconv.Itoa(i)
		if _, err := adm.CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
			return err
		}
		if err := produce(k, topic, int(partitions), 10); err != nil {
			return err
		}
		for count := 0; count < 10; {
			fetches := cl.PollFetches(ctx)
			if err := fetches.Err0(); err != nil {
				return err
			}
			for _, r := range fetches.Records() {
				if r.Topic == topic {
					count++
				}
			}
		}
	}
	return nil
}

func seekByTime(k *kit) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	topic, err := k.topic(ctx, "time", 1, nil)
	if err != nil {
		return err
	}
	cl, err := k.client()
	if err != nil {
		return err
	}
	defer cl.Close()
	start := time.Now().UnixMilli() - 500_000
	for batch := range 10 {
		var records []*kgo.Record
		for i := batch * 10; i < batch*10+10; i++ {
			stamp := time.UnixMilli(start + int64(i)*1000)
			records = append(records, &kgo.Record{Topic: topic, Value: []byte("v" + strconv.Itoa(i)), Timestamp: stamp})
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
	}
	adm := kadm.NewClient(cl)
	for _, c := range [][2]int64{{-5000, 0}, {0, 0}, {55_000, 55}, {55_001, 56}, {99_000, 99}} {
		listed, err := adm.ListOffsetsAfterMilli(ctx, start+c[0], topic)
		if err != nil {
			return err
		}
		found := listed[topic][0]
		if found.Err != nil || found.Offset != c[1] || found.Timestamp != start+c[1]*1000 {
			return fmt.Errorf("at %d ms: %+v", c[0], found)
		}
	}
	// Beyond the last record kadm itself turns "none" into the end.
	after, err1 := adm.ListOffsetsAfterMilli(ctx, start+99_001, topic)
	begin, err2 := adm.ListStartOffsets(ctx, topic)
	end, err3 := adm.ListEndOffsets(ctx, topic)
	largest, err4 := adm.ListMaxTimestampOffsets(ctx, topic)
	if err := first(err1, err2, err3, err4); err != nil {
		return err
	}
	if err := first(same(100, after[topic][0].Offset, "beyond the last record"), same(0, begin[topic][0].Offset, "start"),
		same(100, end[topic][0].Offset, "end"), same(99, largest[topic][0].Offset, "largest timestamp")); err != nil {
		return err
	}
	at := kgo.NewOffset().AfterMilli(start + 55_001)
	reader, err := k.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: at}}))
	if err != nil {
		return err
	}
	defer reader.Close()
	fetches := reader.PollFetches(ctx)
	if err := fetches.Err0(); err != nil {
		return err
	}
	return same("v56", string(fetches.Records()[0].Value), "first value")
}

// longPoll: a waiting reader gets a record soon after it was written, long before its poll ends.
func longPoll(k *kit) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	topic, err := k.topic(ctx, "poll", 1, nil)
	if err != nil {
		return err
	}
	cl, err := k.client(kgo.ConsumeTopics(topic), kgo.FetchMaxWait(6*time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	wrote := make(chan error, 1)
	time.AfterFunc(time.Second, func() { wrote <- produce(k, topic, 1, 1) })
	began := time.Now()
	fetches := cl.PollFetches(ctx)
	if err := first(<-wrote, fetches.Err0()); err != nil {
		return err
	}
	if len(fetches.Records()) != 1 || time.Since(began) > 3*time.Second {
		return errors.New("the waiting fetch was not woken")
	}
	return nil
}
