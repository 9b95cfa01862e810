//go:build !linux

package clustertest

import "errors"

func within(string, func() error) error {
	return errors.New("clustertest: hosts of their own need Linux")
}
