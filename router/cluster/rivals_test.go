package cluster_test

import (
	"testing"

	"github.com/futurechat/future/router/cluster"
	"github.com/futurechat/future/router/cluster/clustertest"
)

func TestRivals_ClaimTheSameNameInOneRole_OrTheSameAddress(t *testing.T) {
	self := clustertest.Of(1)
	sameName, otherRole, sameAddress := clustertest.Of(2), clustertest.Of(3), clustertest.Of(4)
	sameName.Name = self.Name
	otherRole.Name, otherRole.Roles = self.Name, []cluster.Role{cluster.RoleHistory}
	sameAddress.Peer = self.Peer
	got := cluster.Rivals(self, []cluster.Member{self, sameName, otherRole, sameAddress, clustertest.Of(5)})
	if len(got) != 2 || got[0].ID != sameName.ID || got[1].ID != sameAddress.ID {
		t.Fatalf("got %+v", got)
	}
}

// Of two rivals exactly one yields, and both agree which.
func TestYields_ExactlyOneOfTwo(t *testing.T) {
	old := cluster.Member{ID: "b", SinceMs: 1, Generation: 1}
	for what, young := range map[string]cluster.Member{
		"the later one of a generation":           {ID: "a", SinceMs: 2, Generation: 1},
		"of one time and generation the later ID": {ID: "c", SinceMs: 1, Generation: 1},
	} {
		if !young.Yields(old) || old.Yields(young) {
			t.Errorf("%s has to yield", what)
		}
	}
	if taken := (cluster.Member{ID: "c", SinceMs: 5, Generation: 2}); taken.Yields(old) || !old.Yields(taken) {
		t.Error("one whose place was taken has to yield, though it was there before")
	}
}

// Two of a name that start at once must not both give up.
func TestDefers_ExactlyOneOfTwoThatStart(t *testing.T) {
	first, second := cluster.Member{ID: "a", SinceMs: 1, State: cluster.Starting}, cluster.Member{ID: "b", SinceMs: 2, State: cluster.Starting}
	if first.Defers(second) || !second.Defers(first) {
		t.Error("of two that start the later one has to give up")
	}
	second.State = cluster.Serving
	if !first.Defers(second) || !second.Defers(first) {
		t.Error("to one that serves each has to give up")
	}
}

func TestInOffice_LeavesOutWhoDrains(t *testing.T) {
	goes, starts, old := clustertest.Of(1), clustertest.Of(3), clustertest.Of(5)
	goes.State, starts.State, old.State = cluster.Draining, cluster.Starting, ""
	members := []cluster.Member{goes, clustertest.Of(2), starts, old}
	if got := cluster.InOffice(members, cluster.RoleRouter); len(got) != 2 || got[0].ID != starts.ID || got[1].ID != old.ID {
		t.Errorf("got %+v", got)
	}
	if got := cluster.WithRole(members, cluster.RoleRouter); len(got) != 3 {
		t.Errorf("with the role: %+v", got)
	}
}
