package clustertest

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// within calls f with the sockets that it makes in a network namespace: listeners and connections stay there wherever they are
// used afterwards. f must not make them in other goroutines, as looking up a name does.
func within(namespace string, f func() error) error {
	ns, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, so nobody else gets it
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", namespace, err)
			return
		}
		done <- f()
	}()
	return <-done
}
