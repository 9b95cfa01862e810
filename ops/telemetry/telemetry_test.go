package telemetry_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/futurechat/future/ops/telemetry"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestAdmin_HealthAndMetrics(t *testing.T) {
	h := telemetry.NewHealth("node", "router")
	a, err := telemetry.ServeAdmin(t.Context(), "127.0.0.1:0", telemetry.NewRegistry("v1"), h, false, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	}()
	base := "http://" + a.Addr
	if code, _ := get(t, base+"/livez"); code != http.StatusOK {
		t.Errorf("livez: %d", code)
	}
	if code, body := get(t, base+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"router":"starting"`) {
		t.Errorf("readyz at the start: %d %s", code, body)
	}
	h.Set("node", "")
	h.Set("router", "waiting for kafka at here")
	if code, body := get(t, base+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "waiting for kafka at here") {
		t.Errorf("readyz with one part away: %d %s", code, body)
	}
	h.Set("router", "")
	if code, _ := get(t, base+"/readyz"); code != http.StatusOK {
		t.Errorf("readyz when all is ready: %d", code)
	}
	if _, body := get(t, base+"/metrics"); !strings.Contains(body, `future_build_info{version="v1"} 1`) {
		t.Error("no build info in the metrics")
	}
	if code, _ := get(t, base+"/debug/pprof/cmdline"); code != http.StatusOK {
		t.Errorf("pprof on loopback: %d", code)
	}
}

// A full disk for logs must not stop the server: lines are lost, and counted.
func TestLogger_AWriteThatFailsIsCounted(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Fatal(err)
	}
	r := telemetry.NewRegistry("v1")
	log, done, err := telemetry.NewLogger("info", full, r)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	for range 3 {
		log.Info("lost")
	}
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "future_log_lines_lost_total" {
			if n := f.GetMetric()[0].GetCounter().GetValue(); n != 3 {
				t.Errorf("%v lines counted", n)
			}
			return
		}
	}
	t.Error("not counted")
}

func TestLogger_LevelAndFile(t *testing.T) {
	if _, _, err := telemetry.NewLogger("loud", "", telemetry.NewRegistry("")); err == nil {
		t.Error("a level that does not exist was taken")
	}
	path := filepath.Join(t.TempDir(), "log")
	log, done, err := telemetry.NewLogger("warn", path, telemetry.NewRegistry(""))
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud")
	done()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); strings.Contains(s, "quiet") || !strings.Contains(s, `"msg":"loud"`) {
		t.Errorf("log is %s", s)
	}
}
