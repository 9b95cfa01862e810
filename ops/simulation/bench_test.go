package simulation

import "testing"

func BenchmarkSeed(b *testing.B) {
	for i := range b.N {
		if r := Run(Options{Seed: uint64(i)}); r.Broken != nil {
			b.Fatal(r.Seed, r.Broken)
		}
	}
}
