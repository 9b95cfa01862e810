package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/futurechat/future/ops/config"
)

func parse(t *testing.T, args ...string) (*config.Config, error) {
	t.Helper()
	c := config.New()
	return c, c.Parse("node", "", args, &strings.Builder{}, nil)
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "future.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParse_TheExampleIsValid(t *testing.T) {
	c, err := parse(t, "-config", "example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.Secret = "0123456789abcdef" // stands in another file
	if err := c.Validate("node"); err != nil {
		t.Fatal(err)
	}
	if c.Addr != "0.0.0.0:7700" || len(c.Kafka) != 3 || c.Retention != 720*time.Hour || c.Seeds[1] != "10.0.0.7:7703" {
		t.Errorf("read %+v", c)
	}
}

// R29: flag before environment before file before default.
func TestR29_FlagEnvironmentFile_InThatOrder(t *testing.T) {
	path := file(t, "addr: 1.1.1.1:1\ncluster: file\nname: file\n")
	t.Setenv("FUTURE_ADDR", "2.2.2.2:2")
	t.Setenv("FUTURE_CLUSTER", "environment")
	c, err := parse(t, "-config", path, "-addr", "3.3.3.3:3")
	if err != nil {
		t.Fatal(err)
	}
	if c.Addr != "3.3.3.3:3" || c.Cluster != "environment" || c.Name != "file" || c.AdminAddr != "127.0.0.1:7701" {
		t.Errorf("addr %s, cluster %s, name %s, admin %s", c.Addr, c.Cluster, c.Name, c.AdminAddr)
	}
}

func TestParse_WhatIsUnknownIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		env  [2]string
		args []string
		want string
	}{
		"key in the file":      {file: "bogus: 1.1.1.1:1\n", want: "bogus"},
		"key twice":            {file: "addr: 1.1.1.1:1\naddr: 1.1.1.1:1\n", want: "twice"},
		"nested":               {file: "kafka:\n  brokers: x\n", want: "a value or a list"},
		"no mapping":           {file: "- addr\n", want: "a mapping"},
		"broken":               {file: "addr: [\n", want: "yaml"},
		"environment variable": {env: [2]string{"FUTURE_BOGUS", "x"}, want: "FUTURE_BOGUS"},
		"flag":                 {args: []string{"-bogus", "x"}, want: "bogus"},
		"argument":             {args: []string{"x"}, want: `"x"`},
		"duration":             {args: []string{"-ping", "5"}, want: "ping"},
		"missing file":         {args: []string{"-config", "/nonexistent"}, want: "/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			args := test.args
			if test.file != "" {
				args = append(args, "-config", file(t, test.file))
			}
			if test.env[0] != "" {
				t.Setenv(test.env[0], test.env[1])
			}
			if _, err := parse(t, args...); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to name %s", err, test.want)
			}
		})
	}
}

func TestValidate_NamesEachSettingThatIsWrong(t *testing.T) {
	c, err := parse(t, "-addr", "here", "-partitions", "0", "-replication", "1", "-min-insync", "2", "-retention", "1h",
		"-ping", "10s", "-silence", "15s", "-log-level", "loud", "-kafka", "", "-secret", "short", "-namespace", "a b", "-loops", "0")
	if err != nil {
		t.Fatal(err)
	}
	err = c.Validate("node")
	if err == nil {
		t.Fatal("all was taken")
	}
	for _, name := range []string{"addr", "partitions", "min-insync", "retention", "silence", "log-level", "kafka", "secret", "mysql", "namespace", "loops"} {
		if !strings.Contains(err.Error(), "-"+name+":") {
			t.Errorf("nothing about -%s in:\n%v", name, err)
		}
	}
}

func TestPrint_IsReadAgainAndHidesSecrets(t *testing.T) {
	c, err := parse(t, "-addr", "3.3.3.3:3", "-kafka", "a:1,b:2", "-secret", "hush-hush-hush-hush", "-mysql", "future:pw-of-mysql@tcp(x:1)/y", "-redis-password", "pw-of-redis")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hush", "pw-of-mysql", "pw-of-redis"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is printed", secret)
		}
	}
	again, err := parse(t, "-config", file(t, out.String()))
	if err != nil {
		t.Fatal(err)
	}
	if again.Addr != c.Addr || again.Kafka.String() != c.Kafka.String() || again.Silence != c.Silence {
		t.Errorf("read back %+v", again)
	}
}

func TestParse_HelpShowsWhatTheCommandUses(t *testing.T) {
	var out strings.Builder
	err := config.New().Parse("chat", "chatd chat: about it", []string{"-h"}, &out, nil)
	if !errors.Is(err, config.ErrHelp) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(out.String(), "about it") || !strings.Contains(out.String(), "-addr") || strings.Contains(out.String(), "-kafka") {
		t.Errorf("help is\n%s", out.String())
	}
}

func TestReadSecret_FromItsFile(t *testing.T) {
	c := config.New()
	c.SecretFile = file(t, "from-a-file-0123456789\n")
	if err := c.ReadSecret(); err != nil || c.Secret != "from-a-file-0123456789" {
		t.Errorf("%q, %v", c.Secret, err)
	}
	c.SecretFile = "/nonexistent"
	if err := c.ReadSecret(); err == nil {
		t.Error("a missing file was no error")
	}
}

func TestValidate_SeedsMayBeNamesOfSRVRecords(t *testing.T) {
	for seed, good := range map[string]bool{
		"_gossip._tcp.example": true, "host.example:7703": true, "10.0.0.1:7703": true, "host.example": false, "_gossip._tcp.example:": false,
	} {
		c, err := parse(t, "-seeds", seed, "-secret", "0123456789abcdef", "-mysql", "sqlite:x", "-client-advertise", "node5.example:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate("node"); (err == nil) != good {
			t.Errorf("%s: %v", seed, err)
		}
	}
}

func TestValidate_OthersNeedAHostToConnectTo(t *testing.T) {
	for _, test := range []struct {
		cmd, want string
		args      []string
	}{
		{"node", "-peer-advertise:", []string{"-peer-addr", ":7702"}},
		{"history", "-peer-advertise:", []string{"-peer-addr", "[::]:7702"}},
		{"node", "", []string{"-peer-addr", "0.0.0.0:7702", "-peer-advertise", "10.0.0.5:7702"}},
		{"admin", "", []string{"-peer-addr", ":7702"}},
		{"node", "-peer-addr:", []string{"-gossip-addr", "10.0.0.5:7703"}},
		{"node", "", []string{"-gossip-addr", "10.0.0.5:7703", "-peer-addr", "10.0.0.5:7702"}},
		{"node", "-peer-advertise:", []string{"-peer-advertise", ":7702"}},
		{"node", "-client-advertise:", []string{"-client-advertise", "0.0.0.0:7700"}},
	} {
		c, err := parse(t, append(test.args, "-secret", "0123456789abcdef", "-mysql", "sqlite:x")...)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(test.cmd); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: %v", test.cmd, test.args, err)
		}
	}
}
