package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// rawKafka is what kafka-go offers, for one topic.
type rawKafka struct {
	o         *options
	transport *kafka.Transport
	client    *kafka.Client
}

func newKafka(o *options) *rawKafka {
	t := &kafka.Transport{ClientID: "rawkafka"}
	return &rawKafka{o: o, transport: t, client: &kafka.Client{Addr: kafka.TCP(o.brokers...), Transport: t}}
}

// makeTopic makes the topic as Future makes its own.
func (k *rawKafka) makeTopic(ctx context.Context) error {
	r, err := k.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: k.o.topic, NumPartitions: k.o.partitions, ReplicationFactor: k.o.replication,
		ConfigEntries: []kafka.ConfigEntry{
			{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"},
			{ConfigName: "min.insync.replicas", ConfigValue: strconv.Itoa(k.o.minInSync)},
		},
	}}})
	if err != nil {
		return err
	}
	if err := r.Errors[k.o.topic]; err != nil {
		return fmt.Errorf("create topic %s: %w", k.o.topic, err)
	}
	return k.awaitLeaders(ctx)
}

// awaitLeaders waits until every partition has one.
func (k *rawKafka) awaitLeaders(ctx context.Context) error {
	const patience, pause = 30 * time.Second, 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		r, err := k.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{k.o.topic}})
		if err == nil && len(r.Topics) == 1 && r.Topics[0].Error == nil && len(r.Topics[0].Partitions) == k.o.partitions {
			ready := 0
			for _, p := range r.Topics[0].Partitions {
				if p.Error == nil && p.Leader.Host != "" {
					ready++
				}
			}
			if ready == k.o.partitions {
				return nil
			}
		}
		if slept := sleep(ctx, pause); slept != nil {
			return fmt.Errorf("topic %s has no leaders: %w", k.o.topic, errors.Join(slept, err))
		}
	}
}

func (k *rawKafka) deleteTopic(ctx context.Context) error {
	r, err := k.client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{k.o.topic}})
	if err != nil {
		return err
	}
	return r.Errors[k.o.topic]
}

func (k *rawKafka) partition(key string) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, key) // a hash takes everything
	return int(h.Sum32() % uint32(k.o.partitions))
}

// producer sends records, all in-sync replicas acknowledging, and never waits for an acknowledgement in send.
type producer interface {
	send(ctx context.Context, key string, value []byte) error
	close() error
}

// producer makes the producer asked for. It tells acked of every acknowledgement, and failed of what went wrong.
func (k *rawKafka) producer(ctx context.Context, acked func([]byte, time.Time) error, failed func(error)) producer {
	if k.o.produce == "writer" {
		return k.newWriter(acked, failed)
	}
	return k.newClientProducer(ctx, acked, failed)
}

type writerProducer struct {
	k *rawKafka
	w *kafka.Writer
}

func (k *rawKafka) newWriter(acked func([]byte, time.Time) error, failed func(error)) *writerProducer {
	const noLinger = time.Nanosecond // 0 would be the default of a second
	return &writerProducer{k, &kafka.Writer{
		Addr: k.client.Addr, Topic: k.o.topic, Transport: k.transport,
		RequiredAcks: kafka.RequireAll, Async: true, BatchTimeout: noLinger,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return k.partition(string(m.Key)) }),
		Completion: func(records []kafka.Message, err error) {
			at := time.Now()
			for _, r := range records {
				if err == nil {
					err = acked(r.Value, at)
				}
			}
			if err != nil {
				failed(fmt.Errorf("produce: %w", err))
			}
		},
	}}
}

func (p *writerProducer) send(ctx context.Context, key string, value []byte) error {
	return p.w.WriteMessages(ctx, kafka.Message{Key: []byte(key), Value: value})
}

func (p *writerProducer) close() error { return p.w.Close() }

// clientProducer has a goroutine per partition: whatever waits goes out in one request once the one before is answered.
type clientProducer struct {
	k       *rawKafka
	queues  []chan kafka.Record
	workers sync.WaitGroup
}

func (k *rawKafka) newClientProducer(ctx context.Context, acked func([]byte, time.Time) error, failed func(error)) *clientProducer {
	const room = 10_000 // more than ever waits unless the broker has stopped
	p := &clientProducer{k: k}
	for i := range k.o.partitions {
		queue := make(chan kafka.Record, room)
		p.queues = append(p.queues, queue)
		p.workers.Go(func() {
			for r := range queue {
				batch := []kafka.Record{r}
				for len(queue) > 0 {
					batch = append(batch, <-queue)
				}
				if err := k.produceBatch(ctx, i, batch, acked); err != nil {
					failed(err)
				}
			}
		})
	}
	return p
}

func (k *rawKafka) produceBatch(ctx context.Context, partition int, batch []kafka.Record, acked func([]byte, time.Time) error) error {
	values := make([][]byte, len(batch))
	for i, r := range batch {
		b, err := kafka.ReadAll(r.Value)
		if err != nil {
			return err
		}
		values[i], batch[i].Value = b, kafka.NewBytes(b)
	}
	r, err := k.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: k.o.topic, Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(batch...),
	})
	at := time.Now()
	if err == nil {
		err = r.Error
	}
	for _, v := range values {
		if err == nil {
			err = acked(v, at)
		}
	}
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	return nil
}

func (p *clientProducer) send(_ context.Context, key string, value []byte) error {
	select {
	case p.queues[p.k.partition(key)] <- kafka.Record{Key: kafka.NewBytes([]byte(key)), Value: kafka.NewBytes(value)}:
		return nil
	default:
		return errors.New("too many records wait for their acknowledgement")
	}
}

func (p *clientProducer) close() error {
	for _, q := range p.queues {
		close(q)
	}
	p.workers.Wait()
	return nil
}

// maxBytes bounds a fetch.
const maxBytes = 10 << 20

// consume reads a partition, from its beginning, until ctx ends.
func (k *rawKafka) consume(ctx context.Context, partition int, received func([]byte, time.Time) error) error {
	if k.o.consume == "fetch" {
		return k.fetch(ctx, partition, received)
	}
	r := kafka.NewReader(kafka.ReaderConfig{
		Brokers: k.o.brokers, Topic: k.o.topic, Partition: partition, MinBytes: 1, MaxBytes: maxBytes, MaxWait: k.o.maxWait,
	})
	for {
		m, err := r.ReadMessage(ctx)
		if err == nil {
			err = received(m.Value, time.Now())
		}
		if err != nil {
			return errors.Join(fmt.Errorf("consume: %w", err), r.Close())
		}
	}
}

func (k *rawKafka) fetch(ctx context.Context, partition int, received func([]byte, time.Time) error) error {
	offset := int64(0)
	for {
		r, err := k.client.Fetch(ctx, &kafka.FetchRequest{
			Topic: k.o.topic, Partition: partition, Offset: offset, MinBytes: 1, MaxBytes: maxBytes, MaxWait: k.o.maxWait,
		})
		if err == nil {
			err = r.Error
		}
		var code kafka.Error
		if errors.As(err, &code) && code.Temporary() { // a partition that is new
			err = sleep(ctx, 20*time.Millisecond)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		at := time.Now()
		for {
			rec, err := r.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("consume: %w", err)
			}
			value, err := kafka.ReadAll(rec.Value)
			if err != nil {
				return err
			}
			offset = rec.Offset + 1
			if err := received(value, at); err != nil {
				return err
			}
		}
	}
}
