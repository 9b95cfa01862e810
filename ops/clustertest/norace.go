//go:build !race

package clustertest

var buildFlags []string
