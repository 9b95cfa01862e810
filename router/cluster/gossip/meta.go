package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"

	"github.com/futurechat/future/router/cluster"
)

// metaVersion is the first byte of a member's meta data. A reader takes what it knows from the front and ignores what follows,
// so fields can be added at the end without another version.
const metaVersion = 1

// metaRoom is what must be left at the start for what changes later, in bytes: the state, the generation, and the port in the client
// address. A member that could not be told as draining would be given work while it goes.
const metaRoom = 32

var errMeta = errors.New("gossip: malformed meta data")

// encodeMeta encodes all of m but its ID, which is the node's name in memberlist: version, then name, peer address, program
// version, the number of roles and each role, client address, state, start and generation; strings after a uvarint length, numbers
// as uvarints. The last four came later: who sends none has none.
func encodeMeta(m cluster.Member) ([]byte, error) {
	b := []byte{metaVersion}
	for _, s := range []string{m.Name, m.Peer, m.Version} {
		b = appendString(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Roles)))
	for _, r := range m.Roles {
		b = appendString(b, string(r))
	}
	b = appendString(appendString(b, m.Client), string(m.State))
	b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(m.SinceMs)), m.Generation)
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip: name, addresses, version and roles take %d bytes, allowed are %d", len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

func decodeMeta(id string, b []byte) (cluster.Member, error) {
	m := cluster.Member{ID: id}
	if len(b) == 0 || b[0] != metaVersion {
		return m, errMeta
	}
	b = b[1:]
	var ok bool
	for _, s := range []*string{&m.Name, &m.Peer, &m.Version} {
		if *s, b, ok = cutString(b); !ok {
			return m, errMeta
		}
	}
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)) {
		return m, errMeta
	}
	b = b[size:]
	for range n {
		var role string
		if role, b, ok = cutString(b); !ok {
			return m, errMeta
		}
		m.Roles = append(m.Roles, cluster.Role(role))
	}
	if len(b) == 0 {
		return m, nil
	}
	var state string
	for _, s := range []*string{&m.Client, &state} {
		if *s, b, ok = cutString(b); !ok {
			return m, errMeta
		}
	}
	since, size := binary.Uvarint(b)
	if size <= 0 {
		return m, errMeta
	}
	generation, more := binary.Uvarint(b[size:])
	if more <= 0 {
		return m, errMeta
	}
	m.State, m.SinceMs, m.Generation = cluster.State(state), int64(since), generation
	return m, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func cutString(b []byte) (s string, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return "", nil, false
	}
	end := size + int(n)
	return string(b[size:end]), b[end:], true
}
