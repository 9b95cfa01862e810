package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
	"go.uber.org/goleak"
)

// childDir in the environment makes the test binary the process that is killed; see TestKill_AcknowledgedRecordsSurvive.
const childDir = "FUTURE_EMBEDDED_TEST_DIR"

const (
	topic      = "crash"
	group      = "crash-readers"
	partitions = 4
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// child produces until it is killed, and tells of each record once it is acknowledged.
func child(dir string) error {
	ctx := context.Background()
	s, err := Start(ctx, Options{Dir: dir})
	if err != nil {
		return err
	}
	client := &kafka.Client{Addr: kafka.TCP(s.KafkaAddr)}
	if err := createTopic(ctx, client); err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
		return err
	}
	commit, err := client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: group, GenerationID: -1,
		Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 1, Offset: 7}}},
	})
	if err = errors.Join(err, commitError(commit)); err != nil {
		return err
	}
	w := &kafka.Writer{
		Addr: kafka.TCP(s.KafkaAddr), Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond,
		Completion: func(messages []kafka.Message, err error) {
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			for _, m := range messages {
				fmt.Printf("%d/%d %s\n", m.Partition, m.Offset, m.Value)
			}
		},
	}
	for i := 0; ; i++ {
		batch := make([]kafka.Message, 10)
		for j := range batch {
			batch[j].Value = fmt.Appendf(nil, "%d-%d-%d", os.Getpid(), i, j)
		}
		if err := w.WriteMessages(ctx, batch...); err != nil {
			return err
		}
	}
}

func createTopic(ctx context.Context, client *kafka.Client) error {
	r, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	if err != nil {
		return err
	}
	return r.Errors[topic]
}

func commitError(r *kafka.OffsetCommitResponse) error {
	if r == nil {
		return nil
	}
	return r.Topics[topic][0].Error
}

// The process is killed while it produces. All that it acknowledged must be there after a restart, at the offset
// that the acknowledgement named, and so must the committed offset.
func TestKill_AcknowledgedRecordsSurvive(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	acked := map[string]string{} // position → value
	for round := range 2 {       // the second kill meets a log that was recovered once
		maps.Copy(acked, produceAndKill(ctx, t, dir, 300))
		t.Logf("round %d: %d records acknowledged in all", round, len(acked))
		checkLog(ctx, t, dir, acked)
	}
	// The check stopped cleanly: that keeps them as well.
	checkLog(ctx, t, dir, acked)
}

// produceAndKill returns what the child had acknowledged, by position, when it was killed.
func produceAndKill(ctx context.Context, t *testing.T, dir string, atLeast int) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := map[string]string{}
	lines := bufio.NewReader(out)
	for {
		// What was in the pipe at the kill was acknowledged as well; a line cut short was not told of.
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		position, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		acked[position] = value
		if len(acked) == atLeast {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed: it has no good end
	if len(acked) < atLeast {
		t.Fatalf("the child ended after %d acknowledged records", len(acked))
	}
	return acked
}

// checkLog starts the servers on dir, and looks for every acknowledged record and the committed offset.
func checkLog(ctx context.Context, t *testing.T, dir string, acked map[string]string) {
	t.Helper()
	s := start(t, dir)
	defer stop(t, s)
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(s.KafkaAddr), Transport: transport}

	// Asked for first: kafka-go looks for the leader of a partition that is not there until ctx ends.
	m, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Topics[0]; got.Error != nil || len(got.Partitions) != partitions {
		t.Fatalf("the topic has %d of %d partitions after the restart: %v", len(got.Partitions), partitions, got.Error)
	}
	found := map[string]string{}
	for p := range partitions {
		readPartition(ctx, t, s.KafkaAddr, p, found)
	}
	for position, value := range acked {
		if found[position] != value {
			t.Errorf("at %s: %q, want the acknowledged %q", position, found[position], value)
		}
	}
	r, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: {1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Topics[topic][0].CommittedOffset; got != 7 {
		t.Errorf("committed offset %d, want 7", got)
	}
}

func readPartition(ctx context.Context, t *testing.T, addr string, p int, found map[string]string) {
	t.Helper()
	conn, err := kafka.DialLeader(ctx, "tcp", addr, topic, p)
	if err != nil {
		t.Fatal(err)
	}
	// One connection rather than a Reader, whose start and end take most of a second.
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
	}
	first, last, err := conn.ReadOffsets()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Seek(first, kafka.SeekAbsolute); err != nil {
		t.Fatal(err)
	}
	for next := first; next < last; {
		m, err := conn.ReadMessage(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		found[fmt.Sprintf("%d/%d", p, m.Offset)] = string(m.Value)
		next = m.Offset + 1
	}
}

func start(t *testing.T, dir string) *Servers {
	t.Helper()
	s, err := Start(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stop(t *testing.T, s *Servers) {
	t.Helper()
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}

func TestRedis_KeysExpireByThemselves(t *testing.T) {
	s := start(t, t.TempDir())
	defer stop(t, s)
	client := redis.NewClient(&redis.Options{Addr: s.RedisAddr})
	defer func() { _ = client.Close() }()
	ctx := t.Context()
	const ttl = 600 * time.Millisecond
	began := time.Now()
	if err := client.Set(ctx, "lease", "x", ttl).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(ctx, "kept", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for client.Exists(ctx, "lease").Val() == 1 {
		if time.Since(began) > 20*time.Second {
			t.Fatal("the key has not expired")
		}
		<-poll.C
	}
	// Never much too early: a lease would be lost to somebody else.
	if took := time.Since(began); took < ttl-ttlMost {
		t.Errorf("expired after %v, want about %v", took, ttl)
	}
	if client.Exists(ctx, "kept").Val() != 1 {
		t.Error("a key without a TTL is gone")
	}
}

func TestStart_FolderOfAnotherIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	if s, err := Start(t.Context(), Options{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("second start: %v, %v, want ErrInUse", s, err)
	}
	stop(t, first)
	stop(t, first) // again: no harm
	stop(t, start(t, dir))
}

func TestStart_ListensOnLoopbackOnly(t *testing.T) {
	s := start(t, t.TempDir())
	defer stop(t, s)
	for _, addr := range []string{s.KafkaAddr, s.RedisAddr} {
		if !strings.HasPrefix(addr, "127.0.0.1:") {
			t.Errorf("listens on %s", addr)
		}
	}
	if !slices.Contains(s.kafka.ListenAddrs(), s.KafkaAddr) {
		t.Errorf("kafka is at %v, not at %s", s.kafka.ListenAddrs(), s.KafkaAddr)
	}
}

func TestStart_CancelledLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := Start(ctx, Options{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, %v", s, err)
	}
	stop(t, start(t, dir))
}
