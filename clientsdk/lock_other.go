//go:build !unix

package future

import "os"

// lockFolder only opens the file: this system has no lock in Go's library that a killed process would not leave behind.
func lockFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

func syncFolder(string) error { return nil }
