package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	future "github.com/futurechat/future/clientsdk"
	"github.com/futurechat/future/ops/clustertest"
)

// nodes measures how long messages between others wait when a node goes that is also to get each of them: the writer has a
// second device there. Each partition may stand still once, so the messages that were due a second after the fault or later,
// with the node still away, are looked at on their own.
func nodes(ctx context.Context, s settings) error {
	a, stop, err := s.arena(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, name := range []string{"node killed (SIGKILL)", "node paused (SIGSTOP)", "node cut off (packets dropped)"} {
		if !strings.Contains(name, s.only) {
			continue
		}
		var stalls, after spread
		for range s.rounds {
			worst, later, err := a.nodeGone(ctx, name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			stalls, after = append(stalls, worst...), append(after, later...)
		}
		s.say("%s: others' messages, slowest per partition: %v", name, stalls)
		s.say("  all, ms: %s", stalls.raw())
		s.say("  of those due a second later and on, the node still away: %v", after)
	}
	stopping, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return a.traffic.Stop(stopping)
}

func (a *arena) nodeGone(ctx context.Context, how string) (stalls, after spread, err error) {
	host, err := a.c.AddHost(ctx)
	if err != nil {
		return nil, nil, err
	}
	victim, err := a.c.AddOn(ctx, host, "node")
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		victim.Kill()
		a.c.Nodes = a.c.Nodes[:len(a.c.Nodes)-1]
	}()
	device, err := future.Dial(ctx, []string{victim.Addr}, future.WithInsecurePasswords(), future.WithHandlers(future.Handlers{}))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = device.Close() }()
	if _, err := device.Login(ctx, a.traffic.Name, a.traffic.Password); err != nil {
		return nil, nil, err
	}
	if err := a.settle(ctx); err != nil {
		return nil, nil, err
	}
	began := time.Now()
	switch {
	case strings.Contains(how, "SIGKILL"):
		victim.Kill()
	case strings.Contains(how, "SIGSTOP"):
		err = victim.Signal(syscall.SIGSTOP)
	default:
		err = host.Cut(ctx, clustertest.Both)
	}
	if err != nil {
		return nil, nil, err
	}
	const away = 15 * time.Second // longer than its lease
	if err := clustertest.Sleep(ctx, away); err != nil {
		return nil, nil, err
	}
	const late = 150 * time.Millisecond
	for _, st := range a.traffic.Streams {
		stalls = append(stalls, st.Stall(began))
		took, due := st.Late(began.Add(time.Second))
		if after = append(after, took); took > late {
			a.say("  %s: %v late %v after the fault", st.Conversation, took, due.Sub(began))
		}
	}
	if dropped, err := host.Dropped(ctx); strings.Contains(how, "dropped") {
		if err != nil || dropped == 0 {
			return nil, nil, fmt.Errorf("the fault did not hit: %d packets dropped, %w", dropped, err)
		}
		a.say("  %d packets dropped", dropped)
	}
	return stalls, after, nil
}
