// Package presencetest is the conformance suite that every presence.Store passes.
package presencetest

import (
	"context"
	"testing"
	"time"

	"github.com/futurechat/future/router/presence"
)

// Fixture is a store under test, empty, with the handles that bring about what a test needs. The maker sees to its end.
type Fixture struct {
	Store presence.Store
	// Broken is a store of the same kind whose server does not answer.
	Broken presence.Store
	// Wipe loses everything.
	Wipe func(t *testing.T)
	// LosePlaces loses a user's places, LoseRecents a conversation's recents.
	LosePlaces  func(t *testing.T, user int64)
	LoseRecents func(t *testing.T, conversation string)
	// Advance lets time pass, as the store sees it.
	Advance func(d time.Duration)
	// TTL is a time to live that the tests may wait for a few times.
	TTL time.Duration
}

type suite struct {
	newStore func(t *testing.T) Fixture
}

// Run runs the suite; newStore makes a fresh store for each test.
func Run(t *testing.T, newStore func(t *testing.T) Fixture) {
	s := suite{newStore}
	for _, test := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"PlacesAreFoundWhileTheirLeaseLives", s.places},
		{"RegisterTellsWhatWasLost", s.added},
		{"UnregisterRemovesExactlyThat", s.unregister},
		{"LocateKeepsTheOrderOfUsers", s.locateMany},
		{"GroupsAreFoundAtTheirIncarnations", s.groups},
		{"EpochChangesWhenAllIsLost", s.epoch},
		{"LeaseHasOneOwner", s.leases},
		{"LeaseExpiresUnlessRenewed", s.leaseExpires},
		{"LeaseSetsAreLeases", s.leaseSets},
		{"LostLeaseIsNotRenewed", s.leaseLost},
		{"LivesAreThoseWithALease", s.lives},
		{"RevokedLivesStayListed", s.revoke},
		{"AppendTellsWhatWasBefore", s.prev},
		{"AppendAgainChangesNothing", s.again},
		{"AppendNeverInfers", s.neverInfers},
		{"AppendOutOfOrderKeepsTheOrderOfSeqs", s.unordered},
		{"AppendAnswersTheEpoch", s.appendEpoch},
		{"AppendOfAFormerLifeJoinsNothing", s.formerLife},
		{"AppendBelowIsKeptApartUntilItJoins", s.rebuild},
		{"AppendBelowHistoryIsDropped", s.belowHistory},
		{"AppendRefusesWhatNoSeqCanBe", s.badSeq},
		{"RecentsAreBoundedByCount", s.count},
		{"RecentsKeepWhatTheDatabaseLacks", s.keepAbove},
		{"RecentsAreBoundedByBytes", s.bytes},
		{"PagesAreWhatWasAsked", s.pages},
		{"SeqsAreExact", s.exact},
		{"AnyMessageComesBack", s.contents},
		{"TailsOnlyRiseInTheirLife", s.tails},
		{"HeadsOnlyRise", s.heads},
		{"NewestIsOfTheRecents", s.newest},
		{"HeadsRiseUnderConcurrency", s.headsConcurrent},
		{"ModelOfRecents", s.model},
		{"BrokenIsUnavailable", s.broken},
	} {
		t.Run(test.name, test.run)
	}
}

// f is a fixture with the calls that must not fail.
type f struct {
	Fixture
	t *testing.T
}

func (s suite) open(t *testing.T) f {
	t.Helper()
	return f{s.newStore(t), t}
}

func (f f) ctx() context.Context { return f.t.Context() }

func (f f) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f f) epoch() string {
	f.t.Helper()
	epoch, err := f.Store.Epoch(f.ctx())
	f.must(err)
	return epoch
}

func (f f) acquire(name, owner, value string, ttl time.Duration) bool {
	f.t.Helper()
	ok, err := f.Store.Acquire(f.ctx(), name, owner, value, ttl)
	f.must(err)
	return ok
}

func (f f) renew(name, owner string, ttl time.Duration) bool {
	f.t.Helper()
	ok, err := f.Store.Renew(f.ctx(), name, owner, ttl)
	f.must(err)
	return ok
}

// live acquires the lease of an incarnation.
func (f f) live(incarnation string) {
	f.t.Helper()
	if !f.acquire(presence.IncarnationLease(incarnation), incarnation, incarnation+".example:1", time.Minute) {
		f.t.Fatalf("lease of %s refused", incarnation)
	}
}

func (f f) register(entries ...presence.Entry) []bool {
	f.t.Helper()
	added, err := f.Store.Register(f.ctx(), entries)
	f.must(err)
	if len(added) != len(entries) {
		f.t.Fatalf("%d answers for %d entries", len(added), len(entries))
	}
	return added
}

func (f f) locate(users ...int64) [][]presence.Place {
	f.t.Helper()
	places, err := f.Store.Locate(f.ctx(), users)
	f.must(err)
	if len(places) != len(users) {
		f.t.Fatalf("%d answers for %d users", len(places), len(users))
	}
	return places
}

func (f f) append(keepAbove uint64, messages ...presence.Recent) []presence.Prev {
	f.t.Helper()
	prevs, epoch, err := f.Store.Append(f.ctx(), messages, keepAbove, "")
	f.must(err)
	if len(prevs) != len(messages) || epoch == "" {
		f.t.Fatalf("%d answers for %d messages, epoch %q", len(prevs), len(messages), epoch)
	}
	return prevs
}

func (f f) page(conversation string, after, before uint64, limit int, forward bool) presence.Page {
	f.t.Helper()
	page, err := f.Store.Page(f.ctx(), conversation, after, before, limit, forward)
	f.must(err)
	return page
}

func (f f) heads(user int64) map[string]uint64 {
	f.t.Helper()
	heads, err := f.Store.Heads(f.ctx(), user)
	f.must(err)
	return heads
}

func entry(user int64, incarnation string, connection uint64) presence.Entry {
	return presence.Entry{User: user, Place: presence.Place{Incarnation: incarnation, Connection: connection, Device: "phone"}}
}

func located(incarnation string, connection uint64) presence.Place {
	return presence.Place{Incarnation: incarnation, Connection: connection, Device: "phone", Addr: incarnation + ".example:1"}
}
