package gateway

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Opening a connection leaves several times the garbage of what it keeps, and the runtime collects it only when as much again
// has been allocated: on a gateway whose clients are idle, that is never. So when little is allocated and much is garbage, collect at once
// and give the memory back.
const (
	trimEvery = 5 * time.Second
	trimQuiet = 16 << 20 // allocated between two looks, in bytes; pings take a tenth of that, a busy gateway a hundred times
	trimSlack = 12 << 20 // garbage and unused memory that are not worth a collection, in bytes
)

// trim gives memory back in quiet moments, until ctx ends.
func trim(ctx context.Context) error {
	t := time.NewTicker(trimEvery)
	defer t.Stop()
	read := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}}
	var before uint64
	for {
		select {
		case <-t.C:
			metrics.Read(read)
			allocated, live, objects, free := read[0].Value.Uint64(), read[1].Value.Uint64(), read[2].Value.Uint64(), read[3].Value.Uint64()
			if allocated-before < trimQuiet && objects+free > live+trimSlack {
				debug.FreeOSMemory()
			}
			before = allocated
		case <-ctx.Done():
			return nil
		}
	}
}
