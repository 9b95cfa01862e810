package traffic

import (
	"encoding/json"
	"strings"

	"github.com/futurechat/future/ops/clustertest"
)

// Owners tells for each partition the router that took it over last, by the routers' logs.
func Owners(c *clustertest.Cluster) (map[int32]*clustertest.Process, error) {
	owners, highest := map[int32]*clustertest.Process{}, map[int32]uint64{}
	for _, r := range c.Routers {
		log, err := r.Log()
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(log) {
			var said struct {
				Msg       string
				Partition int32
				Epoch     uint64 `json:"router_epoch"`
			}
			if !strings.Contains(line, `"delivering a partition"`) || json.Unmarshal([]byte(line), &said) != nil {
				continue
			}
			if said.Epoch > highest[said.Partition] {
				owners[said.Partition], highest[said.Partition] = r, said.Epoch
			}
		}
	}
	return owners, nil
}
