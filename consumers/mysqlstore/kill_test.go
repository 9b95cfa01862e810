package mysqlstore_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	pb "github.com/futurechat/future/clientsdk/wire/futurev1"
	"github.com/futurechat/future/consumers/mysqlstore/sqlite"
	"github.com/futurechat/future/router/chat"
)

// killEnv makes TestSQLite_WritesUntilKilled the program that is killed: it has the file's path.
const killEnv = "FUTURE_TEST_SQLITE_WRITER"

// TestSQLite_WritesUntilKilled is a test only for the parent below.
func TestSQLite_WritesUntilKilled(t *testing.T) {
	path := os.Getenv(killEnv)
	if path == "" {
		return
	}
	s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	offsets, err := s.HistoryOffsets(t.Context(), chat.TopicMessages)
	if err != nil {
		t.Fatal(err)
	}
	for at := offsets[0]; ; at += 3 {
		_, err := s.WriteBatch(t.Context(), chat.Batch{Topic: chat.TopicMessages, From: at, Next: at + 3, Messages: []*pb.Message{
			message("d:1:2", 1, at, "x"), message("d:1:2", 2, at+1, "y"), message("g:5", 7, at+2, "z"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("stored", at+3)
	}
}

func TestSQLite_WhatWasAnsweredSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "future.db")
	stored := int64(0)
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSQLite_WritesUntilKilled$")
		cmd.Env = append(os.Environ(), killEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed amid its writing; what it still said before is read to the end.
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if at, ok := strings.CutPrefix(lines.Text(), "stored "); ok {
				if stored, err = strconv.ParseInt(at, 10, 64); err != nil {
					t.Fatal(err)
				}
			} else {
				t.Log(lines.Text())
			}
			if n == 20+round*7 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		s, err := sqlite.Open(t.Context(), path, sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		offsets, err := s.HistoryOffsets(t.Context(), chat.TopicMessages)
		if err != nil || offsets[0] < stored || stored == 0 {
			t.Fatalf("stored was %d, now it is %v, %v", stored, offsets, err)
		}
		page, err := s.Messages(t.Context(), "d:1:2", 0, 0, 1_000_000, true)
		if err != nil || int64(len(page)) != offsets[0]/3*2 {
			t.Fatalf("%d messages at offset %d, %v", len(page), offsets[0], err)
		}
		head, err := s.Head(t.Context(), 2, "d:1:2")
		if err != nil || int64(head.Unread) != offsets[0]/3 {
			t.Fatalf("%+v at offset %d, %v", head, offsets[0], err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
