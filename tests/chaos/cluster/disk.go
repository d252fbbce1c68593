package cluster

import "time"

// smallDisk is large enough for a node's first minutes, and filled in a moment.
const smallDisk = 256 << 20

// Lead lets partition p's stream be led by n.
func (c *Cluster) Lead(p int, n *Node, within time.Duration) {
	c.t.Helper()
	c.wait(Stream(p)+" is led by "+n.Name, within, func() bool {
		if c.Leader(p) == n {
			return true
		}
		_, _ = c.js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+Stream(p), []byte(`{"placement":{"preferred":"`+n.Name+`"}}`), 3*time.Second) // asked for again
		return false
	})
}
