package floor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// baseline runs a program of bench/baselines and reads the JSON object that it prints into result.
func (f *floor) baseline(ctx context.Context, name string, env, args []string, result any) error {
	bin, err := f.tool(ctx, name)
	if err != nil {
		return err
	}
	const grace = 20 * time.Second // to delete its topic or table
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("%s: %w\n%s", name, err, errs.String())
	}
	if err := json.Unmarshal(out, result); err != nil {
		return fmt.Errorf("%s printed %q: %w", name, out, err)
	}
	return nil
}

// tool builds a baseline once.
func (f *floor) tool(ctx context.Context, name string) (string, error) {
	if bin, ok := f.tools[name]; ok {
		return bin, nil
	}
	root, err := clustertest.Root()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(f.dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./"+name)
	cmd.Dir = filepath.Join(root, "bench", "baselines")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(context.Cause(ctx), fmt.Errorf("build %s: %w\n%s", name, err, out))
	}
	f.tools[name] = bin
	return bin, nil
}

// rawKafka measures one round of produce and consume, with the keys that the pairs' conversations have in a fresh database: so
// its records go to the same partitions.
func (f *floor) rawKafka(ctx context.Context) error {
	keys := make([]string, f.Pairs)
	for i := range keys {
		keys[i] = fmt.Sprintf("d:%d:%d", 2*i+1, 2*i+2)
	}
	replication, inSync := clustertest.Copies(f.servers.Kafka)
	type spread struct {
		P50, P90, P99, Max float64
	}
	var r struct {
		E2E spread  `json:"e2e_ms"`
		Ack spread  `json:"ack_ms"`
		CPU float64 `json:"cpu_ms_per_message"`
	}
	began := time.Now()
	if err := f.baseline(ctx, "rawkafka", nil, []string{
		"-brokers", f.servers.Kafka, "-partitions", strconv.Itoa(f.Partitions), "-keys", strings.Join(keys, ","),
		"-replication", strconv.Itoa(replication), "-min-insync", strconv.Itoa(inSync), "-patience", patience.String(),
		"-rate", strconv.Itoa(f.Rate), "-size", strconv.Itoa(f.Size), "-warmup", f.Warmup.String(), "-duration", f.Duration.String(),
	}, &r); err != nil {
		return err
	}
	f.round(PartLatency, baseline, began, map[string]float64{
		"e2e_p50_ms": r.E2E.P50, "e2e_p90_ms": r.E2E.P90, "e2e_p99_ms": r.E2E.P99, "e2e_max_ms": r.E2E.Max,
		"ack_p50_ms": r.Ack.P50, "ack_p90_ms": r.Ack.P90, "ack_p99_ms": r.Ack.P99, "ack_max_ms": r.Ack.Max,
		"cpu_ms": r.CPU,
	})
	f.Progress("  raw kafka-go: end to end p50 %.2f p99 %.2f ms, acknowledged p50 %.2f p99 %.2f ms, %.2f CPU-ms a message",
		r.E2E.P50, r.E2E.P99, r.Ack.P50, r.Ack.P99, r.CPU)
	return nil
}

// rawMySQL measures inserts: into an empty copy of the table, or behind the rows that there are.
func (f *floor) rawMySQL(ctx context.Context, c *clustertest.Cluster, part string, behind bool) error {
	if !c.Real {
		return nil // it is about a server
	}
	args := []string{
		"-rows", strconv.Itoa(f.HistoryMessages), "-conversations", strconv.Itoa(f.HistoryConversations), "-size", strconv.Itoa(f.Size),
	}
	if behind {
		args = append(args, "-into", "messages")
	}
	var r struct {
		Rate float64 `json:"rows_per_s"`
		CPU  float64 `json:"cpu_ms_per_row"`
	}
	began := time.Now()
	if err := f.baseline(ctx, "rawmysql", []string{"RAWMYSQL_DSN=" + c.Database}, args, &r); err != nil {
		return err
	}
	f.round(part, baseline, began, map[string]float64{"rate": r.Rate, "cpu_ms": r.CPU})
	f.Progress("  raw inserts:  %.0f rows/s, %.4f CPU-ms a row", r.Rate, r.CPU)
	return nil
}
