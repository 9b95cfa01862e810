package cluster

import "slices"

// WithRole returns those that have the role, in their order.
func WithRole(members []Member, role Role) []Member {
	return slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return !m.Has(role) })
}

// InOffice returns those that have the role and do not drain, in their order: those to whom work may be given. Who must reach all that
// still do something, those that drain among them, wants WithRole.
func InOffice(members []Member, role Role) []Member {
	return slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return !m.Has(role) || m.State == Draining })
}

// Rendezvous says which of the members a partition belongs to; false without members. It is highest random weight hashing
// (Thaler and Ravishankar, 1998): all who see the same members come to the same answer whatever their order, and when a
// member comes or goes, only partitions move that it gets or had.
func Rendezvous(partition int32, members []Member) (Member, bool) {
	var best Member
	var most uint64
	for i, m := range members {
		w := weight(partition, m.ID)
		// Two members of one weight: any rule will do that does not depend on their order.
		if i == 0 || w > most || w == most && m.ID < best.ID {
			best, most = m, w
		}
	}
	return best, len(members) > 0
}

// weight must never change: processes of two versions have to agree.
func weight(partition int32, id string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset) // FNV-1a
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * prime
	}
	return mix(mix(h) + uint64(uint32(partition)))
}

// mix is the finalizer of splitmix64. FNV alone spreads the last bytes badly, and partitions are small numbers.
func mix(h uint64) uint64 {
	h += 0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
