// Checks BOOTSTRAP [NAME...]: what franz-go must be able to do with a broker, in its default settings.
// Prints "PASS name seconds", "FAIL name seconds message" a check; see tests/clients/README.md.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type check struct {
	name string
	run  func(*kit) error
}

// kit makes clients of one broker, and is the way to whoever runs this program.
type kit struct {
	bootstrap string
	answers   *bufio.Reader
	serial    atomic.Int64
}

func (k *kit) unique(stem string) string {
	number := time.Now().UnixNano() + k.serial.Add(1)
	return stem + "-" + strconv.FormatInt(number, 36)
}

func (k *kit) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(k.bootstrap)}, opts...)...)
}

func (k *kit) admin() (*kadm.Client, error) {
	cl, err := k.client()
	if err != nil {
		return nil, err
	}
	return kadm.NewClient(cl), nil
}

// topic creates a topic and returns its name when its partitions answer: Kafka shows a leader before that one has
// a log, and what is written with acks=0 in between is lost.
func (k *kit) topic(ctx context.Context, stem string, partitions int32, configs map[string]*string) (string, error) {
	adm, err := k.admin()
	if err != nil {
		return "", err
	}
	defer adm.Close()
	name := k.unique(stem)
	if _, err := adm.CreateTopic(ctx, partitions, 1, configs, name); err != nil {
		return "", err
	}
	return name, until("an answer of all partitions", 10*time.Second, func() bool {
		ends, err := adm.ListEndOffsets(ctx, name)
		return err == nil && ends.Error() == nil && len(ends[name]) == int(partitions)
	})
}

// restart asks for the broker's end and new start; it returns when that is done.
func (k *kit) restart(hard bool) error {
	how := "soft"
	if hard {
		how = "hard"
	}
	fmt.Println("RESTART", how)
	_, err := k.answers.ReadString('\n')
	return err
}

func until(what string, limit time.Duration, done func() bool) error {
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s", limit, what)
		}
	}
	return nil
}

func same[T comparable](expected, found T, what string) error {
	if expected != found {
		return fmt.Errorf("%s: expected %v, found %v", what, expected, found)
	}
	return nil
}

// first returns the first error that is not nil.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// readAll reads all partitions of a topic from their start until count records are there, and sees that no more come.
func (k *kit) readAll(topic string, count int) ([]*kgo.Record, error) {
	cl, err := k.client(kgo.ConsumeTopics(topic))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var got []*kgo.Record
	for end := time.Now().Add(60 * time.Second); len(got) < count; {
		if time.Now().After(end) {
			return nil, fmt.Errorf("%d of %d records after 60 s", len(got), count)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		got = append(got, cl.PollFetches(ctx).Records()...)
		cancel()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	got = append(got, cl.PollFetches(ctx).Records()...)
	return got, same(count, len(got), "records read")
}

func main() {
	k := &kit{bootstrap: os.Args[1], answers: bufio.NewReader(os.Stdin)}
	wanted := os.Args[2:]
	good := true
	for _, c := range slices.Concat(produceChecks(), consumeChecks(), adminChecks(), restartChecks()) {
		if len(wanted) > 0 && !slices.Contains(wanted, c.name) {
			continue
		}
		began := time.Now()
		err := c.run(k)
		seconds := time.Since(began).Seconds()
		if err == nil {
			fmt.Printf("PASS %s %.1f\n", c.name, seconds)
			continue
		}
		good = false
		fmt.Printf("FAIL %s %.1f %s\n", c.name, seconds, strings.Join(strings.Fields(err.Error()), " "))
	}
	if !good {
		os.Exit(1)
	}
}
