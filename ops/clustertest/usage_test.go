package clustertest

import (
	"testing"
	"time"
)

func TestParseStat_NameWithParentheses_Read(t *testing.T) {
	line := "77 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 123 1000000 2048 18446744073709551615 1 1"
	got, err := parseStat([]byte(line), 4096)
	if want := (Usage{CPU: 3 * time.Second, RSS: 2048 * 4096}); err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestParseStat_CutOff_Error(t *testing.T) {
	if _, err := parseStat([]byte("77 (chatd) S 1 1"), 4096); err == nil {
		t.Fatal("no error")
	}
}
