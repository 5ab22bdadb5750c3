package main

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The broker ends and comes back while a producer and a group run: nothing is lost, doubled or out of order.

func restartChecks() []check {
	return []check{
		{"restart_soft", func(k *kit) error { return restartInTheMiddle(k, false) }},
		{"restart_hard", func(k *kit) error { return restartInTheMiddle(k, true) }},
	}
}

func restartInTheMiddle(k *kit, hard bool) error {
	const count = 2000
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	topic, err := k.topic(ctx, "restart", 2, nil)
	if err != nil {
		return err
	}
	s := &seen{counts: map[string]int{}}
	m, err := join(k, k.unique("group"), topic, s)
	if err != nil {
		return err
	}
	defer m.leave()
	cl, err := k.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	var mu sync.Mutex
	var failed error
	var pending sync.WaitGroup
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := range count {
			pending.Add(1)
			cl.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: []byte(strconv.Itoa(i))}, func(_ *kgo.Record, err error) {
				mu.Lock()
				failed = first(failed, err)
				mu.Unlock()
				pending.Done()
			})
			time.Sleep(2 * time.Millisecond)
		}
	}()
	if err := until("the first 300 records", 60*time.Second, func() bool { return s.size() > 300 }); err != nil {
		return err
	}
	if err := k.restart(hard); err != nil {
		return err
	}
	<-wrote
	pending.Wait()
	if failed != nil {
		return failed
	}
	got, err := k.readAll(topic, count)
	if err != nil {
		return err
	}
	next := [2]int{0, 1}
	for _, r := range got {
		if err := same(strconv.Itoa(next[r.Partition]), string(r.Value), "value in order"); err != nil {
			return err
		}
		next[r.Partition] += 2
	}
	return until("all records in the group", 90*time.Second, func() bool { return s.size() == count })
}
