// Package clustertest is the conformance suite that every cluster.Membership passes.
package clustertest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/futurechat/future/router/cluster"
)

// Wait is how long the suite waits for what must happen before it calls the membership broken.
const Wait = 30 * time.Second

// Join makes m a member of the cluster under test and gives its view. The maker sees to its end, also when the test has left
// already.
type Join func(t *testing.T, m cluster.Member) cluster.Membership

// Run runs the suite; newCluster makes an empty cluster for each test.
func Run(t *testing.T, newCluster func(t *testing.T) Join) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, join Join)
	}{
		{"OneSeesItself", oneSeesItself},
		{"AllSeeAllInOrderAndWhole", allSeeAll},
		{"OneThatLeavesIsGoneForTheOthers", leave},
		{"ViewStandsStillAfterLeave", standStill},
		{"LeaveAgainDoesNothing", leaveAgain},
		{"LeaveWithEndedContextEnds", leaveEnded},
		{"ChannelTellsOfEachChange", channel},
		{"ViewsThatWereGivenDoNotChange", viewsAreKept},
		{"SameNameIsNoMatter", sameName},
		{"WhatIsAnnouncedIsSeen", announce},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newCluster(t)) })
	}
}

// Of makes a member of which every field says something.
func Of(n int) cluster.Member {
	return cluster.Member{
		ID: fmt.Sprintf("id-%02d", n), Name: fmt.Sprintf("host-%d:4000", n), Version: "1.2.3-rc1",
		Roles: []cluster.Role{cluster.RoleNode, cluster.RoleRouter}[:1+n%2], Peer: fmt.Sprintf("10.0.0.%d:7000", n),
		Client: fmt.Sprintf("chat-%d.example:443", n), State: cluster.Serving, SinceMs: 1_700_000_000_000 + int64(n), Generation: uint64(n),
	}
}

// WaitFor waits until a view is exactly these members.
func WaitFor(t *testing.T, m cluster.Membership, want ...cluster.Member) {
	t.Helper()
	deadline := time.After(Wait)
	for {
		got, changed := m.Members()
		if reflect.DeepEqual(got, want) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("members are %+v\nwant %+v", got, want)
		}
	}
}

func oneSeesItself(t *testing.T, join Join) { WaitFor(t, join(t, Of(1)), Of(1)) }

func allSeeAll(t *testing.T, join Join) {
	// Not in the order of their IDs.
	c, a, b := join(t, Of(3)), join(t, Of(1)), join(t, Of(2))
	for _, m := range []cluster.Membership{a, b, c} {
		WaitFor(t, m, Of(1), Of(2), Of(3))
	}
}

func leave(t *testing.T, join Join) {
	a, b, c := join(t, Of(1)), join(t, Of(2)), join(t, Of(3))
	WaitFor(t, a, Of(1), Of(2), Of(3))
	WaitFor(t, b, Of(1), Of(2), Of(3))
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	WaitFor(t, a, Of(1), Of(3))
	WaitFor(t, c, Of(1), Of(3))
}

func standStill(t *testing.T, join Join) {
	a, b := join(t, Of(1)), join(t, Of(2))
	WaitFor(t, a, Of(1), Of(2))
	WaitFor(t, b, Of(1), Of(2))
	if err := a.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	WaitFor(t, b, Of(2))
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	WaitFor(t, a, Of(1), Of(2))
	WaitFor(t, b, Of(2))
}

func leaveAgain(t *testing.T, join Join) {
	a := join(t, Of(1))
	for range 3 {
		if err := a.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func leaveEnded(t *testing.T, join Join) {
	a := join(t, Of(1))
	join(t, Of(2))
	WaitFor(t, a, Of(1), Of(2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Leave(ctx) // it may say that nobody was told
	}()
	select {
	case <-done:
	case <-time.After(Wait):
		t.Fatal("Leave does not end")
	}
}

func channel(t *testing.T, join Join) {
	a := join(t, Of(1))
	WaitFor(t, a, Of(1))
	_, changed := a.Members()
	select {
	case <-changed:
		t.Fatal("told of a change, and nothing changed")
	default:
	}
	b := join(t, Of(2))
	await(t, changed)
	WaitFor(t, a, Of(1), Of(2))
	_, changed = a.Members()
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, changed)
}

func await(t *testing.T, changed <-chan struct{}) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(Wait):
		t.Fatal("not told of a change")
	}
}

func viewsAreKept(t *testing.T, join Join) {
	a := join(t, Of(1))
	WaitFor(t, a, Of(1))
	before, _ := a.Members()
	copied := slices.Clone(before)
	join(t, Of(0))
	WaitFor(t, a, Of(0), Of(1))
	if !reflect.DeepEqual(before, copied) {
		t.Fatalf("a slice that was given is now %+v, was %+v", before, copied)
	}
}

func sameName(t *testing.T, join Join) {
	one, two := Of(1), Of(2)
	two.Name, two.Peer = one.Name, one.Peer
	a := join(t, one)
	join(t, two)
	WaitFor(t, a, one, two)
}

func announce(t *testing.T, join Join) {
	a, b := join(t, Of(1)), join(t, Of(2))
	WaitFor(t, b, Of(1), Of(2))
	WaitFor(t, a, Of(1), Of(2))
	goes := Of(1)
	goes.State, goes.Generation, goes.Client = cluster.Draining, 7, ""
	if err := a.Announce(t.Context(), goes); err != nil {
		t.Fatal(err)
	}
	WaitFor(t, a, goes, Of(2))
	WaitFor(t, b, goes, Of(2))
}
