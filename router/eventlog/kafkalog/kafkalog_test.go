package kafkalog_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"go.uber.org/goleak"

	"github.com/futurechat/future/ops/embedded"
	"github.com/futurechat/future/router/eventlog/eventlogtest"
	"github.com/futurechat/future/router/eventlog/kafkalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clusters are those that the tests run against: always the one inside the process, and the real one that the environment names.
func clusters() map[string]func(t *testing.T) []string {
	all := map[string]func(t *testing.T) []string{"embedded": startEmbedded}
	if real := os.Getenv("FUTURE_TEST_KAFKA"); real != "" {
		all["kafka"] = func(*testing.T) []string { return strings.Split(real, ",") }
	}
	return all
}

func onEachCluster(t *testing.T, test func(t *testing.T, brokers []string)) {
	for name, start := range clusters() {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
}

func startEmbedded(t *testing.T) []string {
	s, err := embedded.Start(t.Context(), embedded.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return []string{s.KafkaAddr}
}

// newLog makes a log that is closed when the test ends, if not before.
func newLog(t *testing.T, opts kafkalog.Options) *kafkalog.Log {
	t.Helper()
	log, err := kafkalog.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		cancel() // what is still pending is a failed test's
		_ = log.Close(ctx)
	})
	return log
}

func TestLog_Conforms(t *testing.T) {
	onEachCluster(t, func(t *testing.T, brokers []string) {
		eventlogtest.Run(t, func(t *testing.T, tune eventlogtest.Tune) eventlogtest.Fixture {
			const maxRecord = 1_000_000
			n := newNetwork()
			t.Cleanup(n.close) // after the log is closed
			log := newLog(t, kafkalog.Options{
				Brokers: brokers, Dial: n.dial, MaxRecords: tune.MaxRecords, MaxRecordBytes: maxRecord, Patience: tune.Patience,
			})
			return eventlogtest.Fixture{
				Log:            log,
				MaxRecordBytes: maxRecord,
				Stall:          n.stall,
				Resume:         n.resume,
				Stalled:        n.waitStalled,
				FailStalled:    func() {}, // patience ends
				CutNext:        n.cutNext,
				Trim: func(t *testing.T, topic string, partition int32, start int64) {
					if err := trim(t.Context(), brokers[0], topic, partition, start); err != nil {
						t.Fatal(err)
					}
				},
			}
		})
	})
}

// trim sends DeleteRecords version 1, which kafka-go does not speak, to the partition's leader.
func trim(ctx context.Context, broker, topic string, partition int32, start int64) error {
	leader, err := kafka.LookupPartition(ctx, "tcp", broker, topic, int(partition))
	if err != nil {
		return err
	}
	addr := net.JoinHostPort(leader.Leader.Host, strconv.Itoa(leader.Leader.Port))
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(eventlogtest.Wait)); err != nil {
		return err
	}
	be := binary.BigEndian
	b := make([]byte, 4)
	b = be.AppendUint16(b, 21)
	b = be.AppendUint16(b, 1)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint16(b, 0) // client id
	b = be.AppendUint32(b, 1)
	b = be.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, uint32(partition))
	b = be.AppendUint64(b, uint64(start))
	b = be.AppendUint32(b, 10_000)
	be.PutUint32(b, uint32(len(b)-4))
	if _, err := conn.Write(b); err != nil {
		return err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	answer := make([]byte, be.Uint32(head))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if code := be.Uint16(answer[len(answer)-2:]); code != 0 {
		return fmt.Errorf("trim %s/%d to %d: %w", topic, partition, start, kafka.Error(code))
	}
	return nil
}
