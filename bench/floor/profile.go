package floor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/futurechat/future/ops/clustertest"
)

// profile takes CPU profiles and execution traces of all processes of a cluster while work runs, and stores them in the folder
// Profile. It costs the processes some time itself, so such a round is none to quote.
func (f *floor) profile(ctx context.Context, c *clustertest.Cluster, work func() error) error {
	if err := os.MkdirAll(f.Profile, 0o755); err != nil {
		return err
	}
	// Within the round, after its warm-up, the trace after the profile: they would be in each other's pictures.
	const trace = time.Second
	seconds := max(1, int((f.Duration-trace)/time.Second)-1)
	var taking sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, p := range append(append(append([]*clustertest.Process(nil), c.Nodes...), c.Routers...), c.Histories...) {
		taking.Go(func() {
			err := clustertest.Sleep(ctx, f.Warmup)
			if err == nil {
				err = fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", p.AdminAddr, seconds), filepath.Join(f.Profile, p.Name+".cpu"))
			}
			if err == nil {
				err = fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/trace?seconds=%.1f", p.AdminAddr, trace.Seconds()), filepath.Join(f.Profile, p.Name+".trace"))
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	err := work()
	taking.Wait()
	f.Progress("  profiles are in %s", f.Profile)
	return errors.Join(append(errs, err)...)
}

func fetch(ctx context.Context, url, file string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Body.Close()) }()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, r.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r.Body)
	return errors.Join(err, out.Close())
}
