package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/futurechat/future/bench/floor"
)

func TestRun_Help_TeachesAndSucceeds(t *testing.T) {
	for _, args := range [][]string{nil, {"-h"}, {"help"}, {"floor", "-h"}, {"faults", "-h"}} {
		var out, errs bytes.Buffer
		if code := run(args, &out, &errs); code != exitOK || errs.Len() > 0 {
			t.Errorf("%q: exit code %d, %q on standard error", args, code, &errs)
		}
		if !strings.Contains(out.String(), "go run ./bench") {
			t.Errorf("%q: help does not say how to start it: %q", args, &out)
		}
	}
}

func TestRun_WhatItDoesNotKnow_Refused(t *testing.T) {
	for _, args := range [][]string{
		{"flor"}, {"floor", "-nodse", "3"}, {"floor", "more"}, {"floor", "-rate", "0"}, {"floor", "-only", "lateny"}, {"floor", "-nodes", "1"},
		{"faults", "-faults", "node-kil"}, {"faults", "-sessions", "1"}, {"faults", "-duration", "0s"}, {"faults", "-routers", "1"}, {"faults", "x"},
	} {
		var out, errs bytes.Buffer
		if code := run(args, &out, &errs); code != exitUsage || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("%q: exit code %d, %q on standard output, %q on standard error", args, code, &out, &errs)
		}
	}
}

func TestRun_FailsBeforeAnyRow_RecordSaysSo(t *testing.T) {
	t.Setenv("FUTURE_TEST_KAFKA", "127.0.0.1:1") // without the others it is an error
	t.Setenv("FUTURE_TEST_REDIS", "")
	t.Setenv("FUTURE_TEST_MYSQL", "")
	dir := t.TempDir()
	var out, errs bytes.Buffer
	if code := run([]string{"floor", "-json", "-o", dir}, &out, &errs); code != exitFailed || out.Len() > 0 {
		t.Fatalf("exit code %d, %q on standard output", code, &out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*-floor.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("got %v, %v, want one record", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if r.ExitCode != exitFailed || !strings.Contains(r.Error, "FUTURE_TEST_REDIS") || r.Machine.Cores == 0 ||
		r.Command != "go run ./bench floor -json -o "+dir {
		t.Errorf("got %+v", r)
	}
}

func TestObjects_Row_HasAllFields(t *testing.T) {
	goal, met := 2.5, false
	r := &record{Outcome: floor.Outcome{Rows: []floor.Row{{Row: "x", Value: 3, Unit: "ms", Goal: &goal, GoalIs: "at most", Met: &met}}}}
	r.Commit = "abc"
	var out bytes.Buffer
	if err := r.objects(&out); err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"row", "value", "unit", "baseline", "ratio", "goal", "met", "commit", "machine", "command", "real_servers"} {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing in %s", name, &out)
		}
	}
	if got["met"] != false || got["baseline"] != nil || got["commit"] != "abc" {
		t.Errorf("got %v", got)
	}
}
