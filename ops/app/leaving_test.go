package app

import (
	"context"
	"slices"
	"testing"

	"github.com/futurechat/future/ops/config"
	"github.com/futurechat/future/router/cluster"
)

// seated is a process of a role among others, which has not begun to do anything.
func seated(t *testing.T, others ...cluster.Member) (*App, *cluster.Static) {
	t.Helper()
	cfg := config.New()
	cfg.Name, cfg.LogFile = "self", t.TempDir()+"/log"
	a, err := newApp(cfg, "test", []cluster.Role{cluster.RoleNode})
	if err != nil {
		t.Fatal(err)
	}
	a.self.State = cluster.Serving
	all := cluster.NewStatic(append(slices.Clone(others), a.self)...)
	a.setMembers(all)
	return a, all
}

// Before a part ends, the others know: else they give work to who goes, or send him the clients of another that goes.
func TestR35_Stop_TheOthersKnowBeforeAnythingEnds(t *testing.T) {
	a, all := seated(t)
	var then cluster.State
	a.life.add("clients", func(context.Context) error {
		members, _ := all.Members()
		then = members[0].State
		return nil
	})
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if then != cluster.Draining {
		t.Errorf("as its clients were told to go the process was %q for the others", then)
	}
}

// Clients are told of nodes that serve, and may be told of.
func TestR35_ClientsAreSentToNodesThatStay(t *testing.T) {
	member := func(id string, role cluster.Role, state cluster.State, client string) cluster.Member {
		return cluster.Member{ID: id, Roles: []cluster.Role{role}, State: state, Client: client}
	}
	a, _ := seated(t,
		member("1", cluster.RoleNode, cluster.Serving, "serves:1"), member("2", cluster.RoleNode, cluster.Draining, "goes:1"),
		member("3", cluster.RoleNode, cluster.Starting, "starts:1"), member("4", cluster.RoleNode, cluster.Serving, ""),
		member("5", cluster.RoleRouter, cluster.Serving, "router:1"))
	a.announce(t.Context(), func(m *cluster.Member) { m.Client = "self:1" })
	if got := a.otherNodes(); !slices.Equal(got, []string{"serves:1"}) {
		t.Errorf("clients are sent to %v", got)
	}
	if err := a.stop(); err != nil {
		t.Error(err)
	}
}
