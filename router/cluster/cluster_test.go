package cluster_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/cluster/clustertest"
)

func TestStatic_Conforms(t *testing.T) {
	clustertest.Run(t, func(*testing.T) clustertest.Join {
		s := cluster.NewStatic()
		return func(_ *testing.T, m cluster.Member) cluster.Membership { return s.Join(m) }
	})
}

func TestStatic_SetReplacesAndTells(t *testing.T) {
	s := cluster.NewStatic(clustertest.Of(1))
	_, changed := s.Members()
	again := clustertest.Of(2)
	again.Version = "2"
	s.Set(clustertest.Of(3), clustertest.Of(2), again)
	<-changed
	clustertest.WaitFor(t, s, again, clustertest.Of(3))
}

func routers(n int) []cluster.Member {
	members := make([]cluster.Member, n)
	for i := range members {
		// As alike as incarnations of one operator's machines can be.
		members[i] = cluster.Member{ID: fmt.Sprintf("router-%d", i), Roles: []cluster.Role{cluster.RoleRouter}}
	}
	return members
}

func owner(t *testing.T, p int32, members []cluster.Member) string {
	t.Helper()
	m, ok := cluster.Rendezvous(p, members)
	if !ok {
		t.Fatal("no owner")
	}
	return m.ID
}

func TestRendezvous_NobodyOwnsWithoutMembers(t *testing.T) {
	if m, ok := cluster.Rendezvous(1, nil); ok {
		t.Fatalf("got %+v", m)
	}
}

func TestRendezvous_OrderOfMembersIsNoMatter(t *testing.T) {
	members := routers(7)
	backwards := slices.Clone(members)
	slices.Reverse(backwards)
	for p := range int32(1000) {
		if a, b := owner(t, p, members), owner(t, p, backwards); a != b {
			t.Fatalf("partition %d: %s or %s", p, a, b)
		}
	}
}

// What was true of the first release has to stay: processes of two versions must agree during an upgrade.
func TestRendezvous_IsStableForEver(t *testing.T) {
	var got string
	for p := range int32(16) {
		id := owner(t, p, routers(10))
		got += id[len(id)-1:]
	}
	if want := "0929208328218860"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}

func TestRendezvous_Balance(t *testing.T) {
	const partitions = 10_000
	for _, n := range []int{2, 3, 10} {
		shares := make(map[string]int)
		for p := range int32(partitions) {
			shares[owner(t, p, routers(n))]++
		}
		mean := float64(partitions) / float64(n)
		for id, got := range shares {
			// Five standard deviations of a binomial share.
			if off := math.Abs(float64(got) - mean); off > 5*math.Sqrt(mean*(1-1/float64(n))) {
				t.Errorf("%d members: %s has %d partitions, mean is %.0f", n, id, got, mean)
			}
		}
	}
}

func TestRendezvous_OnlyWhatMustMoves(t *testing.T) {
	members := routers(10)
	for gone := range members {
		fewer := slices.Delete(slices.Clone(members), gone, gone+1)
		for p := range int32(500) {
			before, after := owner(t, p, members), owner(t, p, fewer)
			if before != after && before != members[gone].ID {
				t.Fatalf("partition %d moved from %s to %s when %s went", p, before, after, members[gone].ID)
			}
		}
	}
}

func TestWithRole_KeepsThoseThatHaveIt(t *testing.T) {
	members := []cluster.Member{clustertest.Of(1), clustertest.Of(2), clustertest.Of(3)}
	got := cluster.WithRole(members, cluster.RoleRouter)
	if len(got) != 2 || got[0].ID != "id-01" || got[1].ID != "id-03" || len(members) != 3 || members[1].ID != "id-02" {
		t.Fatalf("got %+v of %+v", got, members)
	}
}
