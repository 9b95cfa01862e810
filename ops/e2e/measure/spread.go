package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// spread is what was measured, over and over.
type spread []time.Duration

func (d spread) at(share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(share*float64(len(sorted))), len(sorted)-1)].Round(time.Millisecond)
}

func (d spread) String() string {
	return fmt.Sprintf("n %d  p50 %v  p90 %v  p99 %v  max %v", len(d), d.at(0.5), d.at(0.9), d.at(0.99), d.at(1))
}

// raw are all of them, in ms.
func (d spread) raw() string {
	all := make([]string, len(d))
	for i, v := range d {
		all[i] = fmt.Sprint(v.Milliseconds())
	}
	return strings.Join(all, " ")
}
