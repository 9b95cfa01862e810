// Package telemetry is what an operator sees of a process: its log, its metrics, and the admin listener with /metrics,
// /livez, /readyz and pprof.
package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// NewLogger logs JSON lines of a level (debug, info, warn, error) and above to a file, or to standard error. A write that
// fails is dropped and counted: a full disk or a closed pipe must not stop the server.
func NewLogger(level, file string, r prometheus.Registerer) (*zap.Logger, func(), error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, nil, fmt.Errorf("telemetry: %w", err)
	}
	out, closeOut := os.Stderr, func() {}
	if file != "" {
		f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("telemetry: log: %w", err)
		}
		out, closeOut = f, func() { _ = f.Close() } // at the very end: nobody is left to tell
	}
	lost := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "future_log_lines_lost_total", Help: "Log lines that could not be written.",
	})
	if err := r.Register(lost); err != nil {
		return nil, nil, fmt.Errorf("telemetry: %w", err)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(&lossy{out, lost}), l)
	// zap reports its own troubles to a sink of its own; here they are counted.
	return zap.New(core, zap.ErrorOutput(zapcore.AddSync(discard{}))), closeOut, nil
}

// lossy swallows errors of its file.
type lossy struct {
	f    *os.File
	lost prometheus.Counter
}

func (w *lossy) Write(b []byte) (int, error) {
	if _, err := w.f.Write(b); err != nil {
		w.lost.Inc()
	}
	return len(b), nil
}

func (w *lossy) Sync() error { return nil }

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// NewRegistry makes a registry with what Go and the process tell of themselves.
func NewRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "future_build_info", Help: "1, by version.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return r
}

// Health is what /readyz tells: named parts, each ready or not.
type Health struct {
	mu    sync.Mutex
	parts map[string]string // name → why not ready; empty: ready
}

// NewHealth gives a Health in which the named parts are not ready yet.
func NewHealth(parts ...string) *Health {
	h := &Health{parts: map[string]string{}}
	for _, p := range parts {
		h.parts[p] = "starting"
	}
	return h
}

// Set says that a part is ready (empty why) or why not.
func (h *Health) Set(part, why string) {
	h.mu.Lock()
	h.parts[part] = why
	h.mu.Unlock()
}

// Ready reports whether all parts are, and what each says.
func (h *Health) Ready() (bool, map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ready, all := true, make(map[string]string, len(h.parts))
	for p, why := range h.parts {
		all[p] = "ready"
		if why != "" {
			ready, all[p] = false, why
		}
	}
	return ready, all
}

func (h *Health) serve(w http.ResponseWriter, _ *http.Request) {
	ready, parts := h.Ready()
	w.Header().Set("Content-Type", "application/json")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(struct { // whoever asked has gone
		Ready bool              `json:"ready"`
		Parts map[string]string `json:"parts"`
	}{ready, parts})
}

// Admin is the admin listener.
type Admin struct {
	Addr   string
	server *http.Server
	done   chan struct{}
}

// ServeAdmin serves /metrics, /livez, /readyz and, on loopback or where anywhere is set, /debug/pprof/.
func ServeAdmin(ctx context.Context, addr string, r *prometheus.Registry, h *Health, anywhere bool, log *zap.Logger) (*Admin, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("telemetry: admin listener: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{Registry: r}))
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("alive\n")) })
	mux.HandleFunc("/readyz", h.serve)
	if tcp, ok := ln.Addr().(*net.TCPAddr); anywhere || ok && tcp.IP.IsLoopback() {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	a := &Admin{
		Addr: ln.Addr().String(), done: make(chan struct{}),
		server: &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10},
	}
	go func() {
		defer close(a.done)
		if err := a.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin listener ended", zap.Error(err))
		}
	}()
	return a, nil
}

// Close ends the listener.
func (a *Admin) Close(ctx context.Context) error {
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.server.Close())
	}
	<-a.done
	return err
}
