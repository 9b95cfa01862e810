package gossip

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/cluster/clustertest"
)

func TestMeta_ComesBackWhole(t *testing.T) {
	for _, want := range []cluster.Member{{ID: "x"}, clustertest.Of(1), clustertest.Of(2)} {
		b, err := encodeMeta(want)
		if err != nil {
			t.Fatal(err)
		}
		// What a later version adds at the end is ignored.
		got, err := decodeMeta(want.ID, append(b, "more"...))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestMeta_OverTheLimitSaysSo(t *testing.T) {
	_, err := encodeMeta(cluster.Member{Name: strings.Repeat("x", 510)})
	if err == nil || !strings.Contains(err.Error(), "512") {
		t.Fatalf("got %v", err)
	}
}

func TestMeta_CutShortIsRefused(t *testing.T) {
	b, err := encodeMeta(clustertest.Of(1))
	if err != nil {
		t.Fatal(err)
	}
	// What a member has sent that knows nothing of clients, states, starts and generations.
	m := clustertest.Of(1)
	old := len(b) - len(m.Client) - len(m.State) - 2 - len(binary.AppendUvarint(nil, uint64(m.SinceMs))) - 1
	m = cluster.Member{ID: "x", Name: m.Name, Peer: m.Peer, Version: m.Version, Roles: m.Roles}
	if got, err := decodeMeta("x", b[:old]); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("of the first version: got %+v, %v, want %+v", got, err, m)
	}
	for n := range b {
		if n == old {
			continue
		}
		if m, err := decodeMeta("x", b[:n]); err == nil {
			t.Errorf("%d bytes of %d gave %+v", n, len(b), m)
		}
	}
}

func FuzzMeta(f *testing.F) {
	b, err := encodeMeta(clustertest.Of(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte{metaVersion, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{metaVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta("x", b)
		if err != nil || len(b) > 512 {
			return
		}
		again, err := encodeMeta(m)
		if err != nil {
			return // uvarints may have been longer or shorter than ours
		}
		if back, err := decodeMeta("x", again); err != nil || !reflect.DeepEqual(back, m) {
			t.Fatalf("got %+v, %v, want %+v", back, err, m)
		}
	})
}

// What fits at the start fits later: a process whose news found no room could not be told as draining.
func TestGossip_WhatFitsAtTheStart_CanAnnounceTheRest(t *testing.T) {
	m := cluster.Member{
		ID: "a", Peer: "10.0.0.1:7420", Version: "1.2.3", Client: "node1.example:0", State: cluster.Serving, Generation: 1,
		Roles: []cluster.Role{cluster.RoleNode, cluster.RoleRouter, cluster.RoleHistory},
	}
	started := 0
	for size := 300; ; size++ {
		m.Name = strings.Repeat("n", size)
		g, err := New(options(m))
		if err != nil {
			break
		}
		started++
		later := m
		later.State, later.Generation, later.Client = cluster.Draining, 1<<40, "node1.example:65535"
		if err := g.Announce(t.Context(), later); err != nil {
			t.Errorf("a name of %d bytes: %v", size, err)
		}
		if err := g.Shutdown(); err != nil {
			t.Error(err)
		}
	}
	if started == 0 {
		t.Error("no name of 300 bytes is taken")
	}
}
